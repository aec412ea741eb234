"""Manifests of clips as rows: every line a row or said to be none, and no more bytes than are allowed."""

from __future__ import annotations

import gzip
import io
import json

import pytest

from gristmill.lake.inputs import unzipped
from gristmill.lake.inputs.folder_lines import LONGEST, MAX_LINE
from gristmill.lake.inputs.manifests import LEAST_ROWS, LONGEST_COLUMNS, MULTIPLE, parts_of, rows_of
from gristmill.lake.inputs.unzipped import EXPANSION


def rows(files: dict[str, bytes]) -> list[dict[str, object]]:
    size = sum(map(len, files.values()))
    got = list(rows_of(list(files), ["a.wav", "b.wav"], lambda name: io.BytesIO(files[name]), size))
    assert all(len(row.data) == row.size <= MAX_LINE for row in got)
    return [json.loads(row.data) for row in got]


def test_lines_of_blanks_and_lines_too_long_are_no_utterances():
    long = b"x" * (MAX_LINE + 1)
    blank = "\u00a0".encode()
    lines = b"\n".join([b"a a.wav", blank, long, b"b b.wav"])
    text = b"\n".join([b"a A mill.", blank, long, b"b"])
    got = rows({"wav.scp": lines, "text": text, "utt2lang": text})
    assert [row.get("id") or row["unread"] for row in got] == ["a", "wav.scp: \u00a0", "wav.scp: ", "b"]
    assert (got[0]["text"], got[3]["text"]) == ("A mill.", "")


def test_every_line_of_one_key_is_a_row_and_the_first_one_counts():
    scp = b"a a.wav\na b.wav\n"
    text = b"a A mill.\na Two mills.\nz None.\n"
    first = {"id": "a", "audio": "a.wav", "text": "A mill."}
    assert rows({"wav.scp": scp, "text": text}) == [first, {"unread": "wav.scp: a b.wav"}]
    segments = b"a a 0 1\nu a 1 2\na a 2 3\n"
    assert rows({"wav.scp": scp, "segments": segments, "text": text}) == [
        {"unread": "wav.scp: a b.wav"},
        first | {"start": 0.0, "end": 1.0},
        {"id": "u", "audio": "a.wav", "start": 1.0, "end": 2.0},
        {"unread": "segments: a a 2 3"},
    ]


def test_what_is_longer_than_a_path_names_nothing():
    path = "x" * (LONGEST + 1)
    assert rows({"wav.scp": f"a {path}\n".encode()}) == [{"id": "a"}]
    recording = {"id": "a", "sources": [{"type": "file", "source": path}]}
    lines = {"supervisions.jsonl": {"id": "u", "recording_id": "a"}, "recordings.jsonl": recording}
    got = rows({name: json.dumps(line).encode() for name, line in lines.items()})
    assert got == [{"id": "u", "recording_id": "a"}]


@pytest.mark.parametrize("kind", ["kaldi", "lhotse", "table"])
def test_all_rows_together_are_bounded(kind):
    path, n = "x/" * 2000 + "a.wav", 2000
    if kind == "kaldi":
        files = {"wav.scp": f"r {path}\n", "segments": "".join(f"{k} r 0 1\n" for k in range(n))}
    elif kind == "lhotse":
        recording = {"id": "r", "sources": [{"type": "file", "source": path}]}
        supervisions = "".join(json.dumps({"id": str(k), "recording_id": "r"}) + "\n" for k in range(n))
        files = {"supervisions.jsonl": supervisions, "recordings.jsonl": json.dumps(recording)}
    else:
        files = {"a.tsv": f"path\t{path}\n" + "a.wav\tb\n" * n}
    got = rows({name: text.encode() for name, text in files.items()})
    assert len(got) == n
    unread = [row for row in got if "unread" in row]
    allowed = max(LEAST_ROWS, MULTIPLE * sum(map(len, files.values())))
    whole = sum(len(json.dumps(row)) for row in got if "unread" not in row)
    assert allowed - len(json.dumps(got[0])) < whole <= allowed
    assert unread and f"and {allowed} of all rows" in str(unread[0]["unread"])


def test_a_joined_row_and_the_names_of_columns_have_a_limit():
    text = b"a " + "\u00fc".encode() * (MAX_LINE // 2 - 1)  # six bytes each as JSON
    got = rows({"wav.scp": b"a a.wav\n", "text": text})
    assert [set(row) for row in got] == [{"unread"}] and "allowed" in str(got[0]["unread"])
    columns = b"path\t" + b"x" * LONGEST_COLUMNS
    assert rows({"a.tsv": columns + b"\na.wav\tb\n"}) == [{"unread": "a.tsv: a.wav\tb"}]


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


RECORDING = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "/corpus/a.wav"}]}
SAID = {
    "id": "s",
    "recording_id": "r",
    "start": 1.5,
    "duration": 2.0,
    "channel": 0,
    "text": "A mill.",
    "language": "en",
}
CUT = {"id": "c", "start": 1.5, "duration": 2.0, "channel": 0, "type": "MonoCut", "recording": RECORDING,
       "supervisions": [SAID | {"start": 0}], "features": {"type": "fbank"}}  # fmt: skip


@pytest.mark.parametrize("zipped", [(False, True), (True, False), (True, True)])
def test_lhotse_is_read_compressed(zipped):
    files = {"x_supervisions.jsonl": lines(SAID), "x_recordings.jsonl": lines(RECORDING, {**RECORDING, "sources": []})}
    packed = {
        name + ".gz" if zip else name: gzip.compress(data) if zip else data
        for zip, (name, data) in zip(zipped, files.items(), strict=True)
    }
    assert parts_of(next(iter(packed)), packed) == list(packed)
    assert rows(packed) == [SAID | {"audio": "/corpus/a.wav"}]


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_cuts_of_lhotse_are_rows(name):
    second = SAID | {"start": 1.0, "duration": 1.0, "text": "Two mills.", "language": "de"}
    two = CUT | {"supervisions": [second, SAID | {"start": 0, "duration": 1.0}, {"id": "silent"}]}
    none = {**CUT, "supervisions": [], "type": "MultiCut", "channel": [0, 1]}
    odd = [CUT | {"type": "MixedCut"}, CUT | {"supervisions": "x"}, {"type": "PaddingCut"}, ["c"], 7]
    data = lines(CUT, two, none, {name: value for name, value in CUT.items() if name != "recording"}, *odd)
    got = rows({name: gzip.compress(data) if name.endswith("gz") else data})
    place = {"id": "c", "start": 1.5, "duration": 2.0, "channel": 0}
    assert got[:4] == [
        place | {"audio": "/corpus/a.wav", "text": "A mill.", "language": "en"},
        place | {"audio": "/corpus/a.wav", "text": "A mill. Two mills."},
        place | {"audio": "/corpus/a.wav", "channel": [0, 1]},
        place | {"text": "A mill.", "language": "en"},
    ]
    assert [list(row) for row in got[4:]] == [["unread"]] * 5


@pytest.mark.parametrize(
    ("start", "duration", "has_text"),
    [(-0.5, 1.0, False), (1.2, 1.0, False), (-0.05, 2.1, True), (10**400, 1.0, True), ("1", None, True)],
)
def test_a_cut_has_no_text_of_what_is_not_heard_in_it(start, duration, has_text):
    beyond = SAID | {"start": start, "duration": duration, "text": "And more."}
    (row,) = rows({"cuts.jsonl": lines(CUT | {"supervisions": [SAID | {"start": 0}, beyond]})})
    assert ("text" in row) == has_text and row["audio"] == "/corpus/a.wav"


def test_a_recording_that_is_not_as_it_lies_in_its_file_names_no_file():
    speed = {"name": "Speed", "kwargs": {"factor": 1.1}}
    for transforms, named in (([speed], False), ("x", False), ([{"name": "Resample"}, speed], False),
                              ([{"name": "Resample"}], True), (None, True)):  # fmt: skip
        recording = RECORDING | {"transforms": transforms}
        (cut,) = rows({"cuts.jsonl": lines(CUT | {"recording": recording})})
        (supervision,) = rows({"x_supervisions.jsonl": lines(SAID), "x_recordings.jsonl": lines(recording)})
        assert ("audio" in cut) == ("audio" in supervision) == named


def test_lines_of_json_may_be_compressed_and_marked():
    data = (
        b"\xef\xbb\xbf" + lines({"audio": "a.wav", "text": "A mill."}, {"audio": "b.wav", "start": 1}) + b"no line\r\n"
    )
    for packed in (gzip.compress(data), gzip.compress(data[:9]) + gzip.compress(data[9:]), data):
        got = list(rows_of(["a.jsonl.gz"], ["a.wav", "b.wav"], lambda _, data=packed: io.BytesIO(data), len(packed)))
        assert [(row.files, row.is_part) for row in got] == [(["a.wav"], False), (["b.wav"], True), ([], False)]
        assert json.loads(got[2].data) == {"unread": "a.jsonl.gz: no line"}


@pytest.mark.parametrize(
    ("damage", "why"),
    [(lambda data: data[:-12], "cut off"), (lambda data: data[:-6] + b"\0" * 6, "damaged"),
     (lambda data: data[:200] + b"\xff" * 99 + data[299:], "damaged"), (lambda data: data + data[:30], "cut off"),
     (lambda data: data + b"\0\0TAG", "damaged")],
)  # fmt: skip
def test_a_compressed_manifest_that_breaks_off_says_so(damage, why):
    random = [{"audio": "a.wav", "text": hex(n * 7919**9)} for n in range(300)]
    got = rows({"a.jsonl.gz": damage(gzip.compress(lines(*random)))})
    assert got[:-1] == random[: len(got) - 1]
    assert "breaks off after" in str(got[-1]["unread"]) and why in str(got[-1]["unread"])


def test_a_compressed_manifest_expands_so_far(monkeypatch):
    monkeypatch.setattr(unzipped, "ANYWAY", 10_000)
    bomb = gzip.compress(lines({"audio": "a.wav"}) * 100_000)
    got = rows({"a.jsonl.gz": bomb})
    assert f"expands more than {EXPANSION} times" in str(got[-1]["unread"]) and len(got) < 50_000


def test_of_recordings_with_one_id_the_first_counts_and_a_line_that_is_none_is_a_row():
    other = RECORDING | {"sources": [{"type": "file", "source": "b.wav"}]}
    files = {"supervisions.jsonl": lines(SAID), "recordings.jsonl": lines(RECORDING, other) + b"{no\n"}
    assert rows(files) == [{"unread": "recordings.jsonl: {no"}, SAID | {"audio": "/corpus/a.wav"}]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_ends_of_lines_and_marks_change_nothing(end):
    def of(*lines: bytes) -> bytes:
        return b"\xef\xbb\xbf" + end.join(lines) + end

    table = {"a.tsv": of(b"path\tsentence", b"a.wav\tA mill.")}
    assert rows(table) == [{"audio": "a.wav", "sentence": "A mill."}]
    assert rows({"a.trans.txt": of(b"a A MILL", b"a")}) == [
        {"id": "a", "audio": "a.wav", "text": "A MILL"}, {"unread": "a.trans.txt: a"},
    ]  # fmt: skip
    kaldi = {
        "wav.scp": of(b"r /x/a.wav"),
        "segments": of(b"u r 0 1"),
        "text": of(b"u A mill."),
        "utt2lang": of(b"u en"),
    }
    assert rows(kaldi) == [
        {"id": "u", "audio": "/x/a.wav", "text": "A mill.", "language": "en", "start": 0.0, "end": 1.0}
    ]
