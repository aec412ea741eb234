"""Manifests of clips as rows: every line a row or said to be none, and no more bytes than are allowed."""

from __future__ import annotations

import io
import json

import pytest

from gristmill.lake.inputs.folder_lines import LONGEST, MAX_LINE
from gristmill.lake.inputs.manifests import LEAST_ROWS, LONGEST_COLUMNS, MULTIPLE, rows_of


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
