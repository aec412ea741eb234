"""The quarantine gate says which records and why, and leaves a list of them that can be asked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import web
from warc_files import gz, http, line, record

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed

WRONG = [
    line(text="a", date=[1]),
    line(text="b", date=[2]),
    line(text=7, url="http://users.example/~anna/"),
    b"{not json, anna@users.example\n",
]


def refused(tmp_path: Path) -> str:
    (tmp_path / "a.jsonl").write_bytes(b"".join(WRONG))
    (tmp_path / "b.warc.gz").write_bytes(gz(record(http(b"x"), length=99)))
    with pytest.raises(GateFailed) as failure:
        web.run(tmp_path / "lake", [tmp_path / "a.jsonl", tmp_path / "b.warc.gz"], unreadable_files="quarantine")
    return str(failure.value)


def test_the_message_names_file_record_field_and_error(tmp_path):
    message = refused(tmp_path)
    assert "5 of 5 records are quarantined (100.0%), more than recipe.max_quarantine_rate=20.0%" in message
    lines = [text.strip() for text in message.splitlines() if text.startswith("  ")]
    a, b = tmp_path / "a.jsonl", tmp_path / "b.warc.gz"
    first = len(WRONG[0])
    assert lines[0] == (
        f"{a}: record 0, bytes 0-{first} decompressed: read.unreadable: field 'date' is a list, not a string or a"
        " number (1 more like it)"
    )
    start = len(WRONG[0]) + len(WRONG[1])
    text = (
        f"{a}: record 2, bytes {start}-{start + len(WRONG[2])} decompressed: read.unreadable: field 'text' (the text)"
    )
    assert f"{text} is a int, not a string" in lines
    assert any(text.startswith(f"{a}: record 3") and "not JSON" in text for text in lines)
    assert any(text.startswith(f"{b}: record 0, bytes 0-") for text in lines)
    assert "anna" not in message and "nothing was committed" in message


def test_what_was_refused_can_be_asked(tmp_path):
    message = refused(tmp_path)
    place = re.search(r"in (\S+/objects/\S+)", message)
    assert place is not None
    rows = [json.loads(text) for text in Path(place[1]).read_text().splitlines()]
    assert [(Path(row["file"]).name, row["ordinal"]) for row in rows if "a.jsonl" in row["file"]] == [
        ("a.jsonl", n) for n in range(4)
    ]
    assert len(rows) == 5 and all(row["error"] and row["reason"] == "read.unreadable" for row in rows)
    assert rows[0].keys() == {"file", "ordinal", "start", "length", "reason", "error"}
    assert Versions(open_store(str(tmp_path / "lake"))).latest("web") is None  # nothing is committed


def test_the_list_is_the_same_however_often_it_is_made(tmp_path):
    assert refused(tmp_path) == refused(tmp_path)
