"""Damaged files of clips, some hundreds, in a child process: each has one fate, and none costs the run, or memory."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from speech import RATE, SAYS, encoded, run, waveform
from vision import fates, folder_of

from gristmill.stages.read.isolated import child

FORMATS = {"wav": ("WAV", None), "flac": ("FLAC", None), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
           "mp3": ("MP3", None)}  # fmt: skip
COPIES = 50
"""Of each format."""


def damaged(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """The file with one to six things wrong: bytes changed (half of them where headers stand), cut out, doubled, set to
    what a number can be at most; or another file behind a part of it."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(min(len(changed), dice.choice((64, len(changed)))))
        size = dice.choice((1, 4, 40, 400))
        match dice.randrange(6):
            case 0:
                changed[at : at + size] = dice.randbytes(size)
            case 1:
                del changed[at : at + size]
            case 2:
                changed[at:at] = changed[at : at + size]
            case 3:
                changed[at : at + 4] = dice.choice((b"\xff" * 4, b"\xff\xff\xff\x7f", bytes(4), b"\x00\x00\x00\x80"))
            case 4:
                changed[at : at + size] = bytes(size)
            case 5:
                changed[at:] = changed[at:][: dice.randrange(1, len(changed))]
        changed = changed or bytearray(b"R")
    return bytes(changed) if dice.random() < 0.9 else bytes(changed[:99]) + other


def highest(pid: int) -> int:
    """Bytes that a process had in memory at its peak."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert peak is not None
    return int(peak[1]) << 10


def test_damaged_files_cost_themselves_alone(store, tmp_path):
    dice = random.Random(16)
    whole = {f"whole.{end}": encoded(waveform(n, 1.0), RATE, *kind) for n, (end, kind) in enumerate(FORMATS.items())}
    files, sources = dict(whole), list(whole.values())
    for name, data in whole.items():
        end = name.partition(".")[2]
        files |= {f"{n:03}.{end}": damaged(data, dice.choice(sources), dice) for n in range(COPIES)}
    lines = [{"audio": name, "text": f"The mill has wheel {n}."} for n, name in enumerate(files)]
    audio = {"seconds_per_record": 60.0, "same": "clips_and_text"}
    run(store, [folder_of(tmp_path / "good", lines[: len(whole)], whole)], audio=audio, dataset="good")
    pid = child().pid
    assert pid is not None
    before = highest(pid)
    manifest = run(store, [folder_of(tmp_path / "in", lines, files)], audio=audio, min_similarity=None)
    got = fates(store, manifest)
    assert len(got) == len(lines) and [got[n] for n in range(len(whole))] == [("kept", None)] * len(whole)
    reasons = {reason for _, reason in got.values()}
    assert {"audio.unreadable", "audio.truncated", "audio.damaged"} <= reasons
    assert all(
        reason is None or reason.split(".")[0] in ("audio", "clip", "speech_rate", "exact") for reason in reasons
    )
    assert len([fate for fate, _ in got.values() if fate == "kept"]) > 20
    if child().pid == pid:  # it did not die over one of them
        assert highest(pid) - before < 200 << 20


def with_number(data: bytes, at: int, layout: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


WAV, FLAC = encoded(waveform(1), format="WAV"), encoded(waveform(1), format="FLAC")
ID3 = b"ID3\x04\0\0\0\0\x0f\x76" + bytes(2038)
ODD = {
    "rate": (with_number(WAV, 24, "<I", 1_092_676), "audio.rate"),
    "no rate": (with_number(WAV, 24, "<I", 0), "audio.unreadable"),
    "no channel": (with_number(WAV, 22, "<H", 0), "audio.unreadable"),
    "many channels": (with_number(with_number(WAV, 22, "<H", 60_000), 32, "<H", 54_464), "audio.unreadable"),
    "nine channels": (encoded(np.zeros((100, 9), np.float32)), "audio.too_many_channels"),
    "claimed bytes": (with_number(WAV, 40, "<I", 0x7FFF0000 - (1 << 17)), "audio.truncated"),
    "claimed samples": (FLAC[:21] + bytes([FLAC[21] | 15]) + b"\xff" * 4 + FLAC[26:], "audio.too_long"),
    "some samples more": (FLAC[:22] + struct.pack(">I", 50_000_000) + FLAC[26:], "audio.damaged"),
    "tags alone": (ID3, "audio.unreadable"),
    "tags and noise": (ID3 + np.random.RandomState(0).bytes(4000), "audio.unreadable"),
    "zeros behind a frame": (b"\xff\xfb\x90\x00" + bytes(4000), "audio."),
    "header alone": (FLAC[:42], "audio."),
    "two files in one": (WAV + WAV, "audio.unreadable"),
    "ogg without a stream": (b"OggS" + bytes(400), "audio.unreadable"),
    "float": (encoded(waveform(1), subtype="FLOAT"), None),
    "float beyond full scale": (encoded(1000 * waveform(1), subtype="FLOAT"), "audio.too_loud"),
    "infinite": (encoded(np.where(np.arange(2 * RATE) == 9, np.inf, waveform(1)), subtype="FLOAT"), "audio.not_finite"),
    "eight bits": (encoded(waveform(1), subtype="PCM_U8"), None),
    "an offset": (encoded(np.full(2 * RATE, 0.4, np.float32)), "clip.silent"),
    "speech on an offset": (encoded(waveform(1) + 0.3), None),
}  # fmt: skip


@pytest.mark.parametrize("whole", [True, False])
def test_odd_files_have_the_fate_that_they_should_have(store, tmp_path, whole):
    """As they are, and as what a row speaks of a part of."""
    part = {} if whole else {"start": 0.5, "end": 1.5}
    names = list(ODD)
    lines = [
        {"audio": f"{n}.wav", "text": SAYS.format(n) if whole else f"Wheel {n}.", **part} for n in range(len(names))
    ]
    files = {f"{n}.wav": data for n, (data, _) in enumerate(ODD.values())}
    manifest = run(store, [folder_of(tmp_path / "in", lines, files)], min_similarity=None)
    got = {names[n]: reason for n, (_, reason) in fates(store, manifest).items()}
    wrong = {
        name: got[name]
        for name, (_, reason) in ODD.items()
        if not (got[name] or "").startswith(reason or "") or (reason is None and got[name] is not None)
    }
    # A part that lies before the place where a file is wrong is had.
    assert set(wrong) == (set() if whole else {"some samples more", "infinite"})
