"""Copies of clips: of each group one is kept, the best, whatever its header says."""

from __future__ import annotations

import numpy as np
import pytest
from speech import SAYS, clip, encoded, run, waveform
from vision import fates, folder_of, rows


def test_copies_of_a_clip_are_found_and_the_best_is_kept(store, tmp_path):
    files: dict[str, bytes] = {}
    for n in range(6):
        at_44, at_16 = waveform(n, 3.0, 44_100), waveform(n, 3.0)
        files |= {f"{n}.flac": encoded(at_44, 44_100, "FLAC"), f"{n}m.mp3": encoded(at_16, format="MP3")}
        files[f"{n}s.wav"] = encoded(np.concatenate([np.zeros(4000, np.float32), 0.3 * at_16]))
    lines = [{"audio": name, "text": SAYS.format(name[0])} for name in files]
    manifest = run(store, [folder_of(tmp_path / "in", lines, files)])
    assert [row["media"][0]["rate"] for row in rows(store, manifest)] == [44_100] * 6
    assert {reason for _, reason in fates(store, manifest).values()} == {None, "sound.duplicate"}


def test_a_lossy_copy_gives_way_to_its_source(store, tmp_path):
    """Whatever the header of the copy says: an MP3 is a little longer, and one of a higher rate is no better."""
    source, loud = waveform(1, 3.0), waveform(2, 3.0, 48_000)
    files = {"0.wav": encoded(source, 16_000), "0a.mp3": encoded(waveform(1, 3.0, 44_100), 44_100, "MP3"),
             "0b.ogg": encoded(source, 16_000, "OGG", "OPUS"), "1.wav": encoded(loud, 48_000, subtype="PCM_24"),
             "1a.wav": encoded(loud, 48_000, subtype="PCM_U8"), "1b.wav": encoded(waveform(2, 3.0), subtype="PCM_24"),
             "1c.wav": encoded(waveform(2, 3.0, 8_000), 8_000, subtype="PCM_24")}  # fmt: skip
    lines = [{"audio": name, "text": SAYS.format(name[0])} for name in files]
    manifest = run(store, [folder_of(tmp_path / "in", lines, files)])
    got = {lines[n]["audio"]: fate for n, (fate, _) in fates(store, manifest).items()}
    assert sorted(name for name, fate in got.items() if fate == "kept") == ["0.wav", "1.wav"]


@pytest.mark.parametrize(("same", "kept"), [("clips_and_text", 4), ("clips", 2), ("text", 2)])
def test_what_makes_two_records_the_same(store, tmp_path, same, kept):
    lines = [{"audio": name, "text": SAYS.format(n)} for name in ("a.wav", "b.wav") for n in range(2)]
    address = folder_of(tmp_path / "in", [*lines, lines[0]], {"a.wav": clip(0), "b.wav": clip(1)})
    manifest = run(store, [address], audio={"same": same})
    assert len(rows(store, manifest)) == kept
    assert {reason for _, reason in fates(store, manifest).values()} == {None, "exact.duplicate"}
