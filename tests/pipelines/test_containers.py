"""A dataset is the same whatever its inputs come in, and wherever they lie."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import fsspec
import mixtures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import web
from warc_files import arc_record, gz, http, record

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.runner import Runner

SENTENCE = "The keeper climbed the stair, and the wind was with him when he came to the lamp that they have. "
ROWS = [
    {
        "text": f"Night {n}. " + SENTENCE * 9 + f"It was the {n}th of the year.",
        "url": f"http://a.example/{n}",
        "date": "2024",
    }
    for n in range(12)
]
IN_PROCESS = {"seconds_per_record": None}


def run(folder: Path | str, inputs: list[Path | str], **recipe: Any) -> tuple[Manifest, pa.Table]:
    manifest = web.run(folder, inputs, **{"minhash": None, **recipe}).manifest
    store = open_store(str(folder))
    assert not verify(store, deep=True)
    return manifest, Dataset(store, manifest).to_arrow()


def tar_of(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for n, row in enumerate(rows):
            for name, data in ((f"{n:03}.txt", row["text"]), (f"{n:03}.json", json.dumps({"url": row["url"]}))):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data.encode()))
    return stream.getvalue()


def test_rows_give_the_same_documents_in_any_container(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=5)
    (tmp_path / "a.tar.gz").write_bytes(gz(tar_of(ROWS)))
    tables = []
    for name in ("a.jsonl", "a.parquet", "a.tar.gz"):
        manifest, table = run(tmp_path / f"lake-{name}", [tmp_path / name], scan={"chunk_records": 4})
        assert web.summary(manifest) == (12, 12, 0, 0)
        tables.append(table.sort_by("url"))
    assert tables[0]["text"].to_pylist() == [row["text"] for row in sorted(ROWS, key=lambda row: row["url"])]
    for table in tables[1:]:
        assert table["text"] == tables[0]["text"] and table["url"] == tables[0]["url"]
        assert [i[:16] for i in table["id"].to_pylist()] == [i[:16] for i in tables[0]["id"].to_pylist()]


def test_pages_of_an_arc_are_those_of_a_warc_and_the_same_record_twice_is_one(tmp_path: Path) -> None:
    blocks = [http(f"<html><body><p>{row['text']}</p></body></html>".encode()) for row in ROWS]
    arcs = [arc_record(block, number=n) for n, block in enumerate(blocks)]
    warcs = [record(block, number=n, url=f"http://a.example/{n}") for n, block in enumerate(blocks)]
    (tmp_path / "a.warc").write_bytes(b"".join(warcs))
    (tmp_path / "a.arc").write_bytes(b"".join(arcs))
    (tmp_path / "again.arc.gz").write_bytes(b"".join(map(gz, arcs)))
    _, of_warc = run(tmp_path / "lake-warc", [tmp_path / "a.warc"])
    manifest, of_arc = run(tmp_path / "lake-arc", [tmp_path / "a.arc", tmp_path / "again.arc.gz"])
    assert of_arc.sort_by("url")["text"] == of_warc.sort_by("url")["text"] and of_arc.num_rows == 12
    dropped = {reason: n for row in manifest.funnel for reason, n in row.dropped.items()}
    assert dropped == {"exact.same_record": 12}


def test_chats_in_parquet_are_those_in_lines(tmp_path: Path, store: Store) -> None:
    rows = [mixtures.chat(n) for n in range(6)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    question = {"messages": [{"role": "user", "content": "only"}]}
    pq.write_table(pa.Table.from_pylist([*rows, question]), tmp_path / "a.parquet")
    tables = []
    for name in ("a.jsonl", "a.parquet"):
        recipe = {"dataset": name.replace(".", "-"), "inputs": [str(tmp_path / name)]}
        manifest = run_pipeline(
            InstructConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)
        ).manifest
        tables.append(Dataset(store, manifest).to_arrow().sort_by("text"))
        reasons = {reason: n for row in manifest.funnel for reason, n in row.dropped.items()}
        assert reasons == ({} if name == "a.jsonl" else {"instruct.no_assistant": 1})
    for column in ("text", "parts"):
        assert tables[1][column] == tables[0][column]


def test_a_damaged_parquet_file_is_quarantined_or_refused_as_the_recipe_says(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    inputs: list[Path | str] = [tmp_path / "a.jsonl", tmp_path / "a.parquet"]
    with pytest.raises(GateFailed, match=r"a\.parquet holds no record that can be read: .*it may be cut off"):
        run(tmp_path / "lake", inputs)
    quarantine = {"unreadable_files": "quarantine"}
    with pytest.raises(GateFailed, match=r"read\.unreadable"):
        run(tmp_path / "lake", inputs, max_quarantine_rate=0.01, **quarantine)
    manifest, _ = run(tmp_path / "lake", inputs, **quarantine)
    assert web.summary(manifest) == (13, 12, 0, 1)
    fates = Dataset(open_store(str(tmp_path / "lake")), manifest).ledger().to_pylist()
    (bad,) = [row for row in fates if row["fate"] == "quarantined"]
    assert "it may be cut off" in bad["value"] or "it may be cut off" in (bad.get("error") or "")


# Where inputs lie


def test_inputs_in_memory_of_this_process(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/crawl/a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS).encode())
    manifest, table = run(tmp_path / "lake", ["memory://crawl/*.jsonl"], extract=IN_PROCESS)
    assert table.num_rows == 12 and manifest.inputs[0].names == ("memory:///crawl/a.jsonl",)
    files.store.clear()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def test_a_short_file_of_a_web_server_without_ranges_is_an_input(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        _, table = run(tmp_path / "lake", [f"http://127.0.0.1:{server.server_address[1]}/a.jsonl"])
        server.shutdown()
    assert table.num_rows == 12


def test_parquet_on_s3_is_read_through_the_child(tmp_path: Path, s3_lake: str) -> None:
    bucket, prefix = s3_lake.removeprefix("s3://").split("/")
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), stream, row_group_size=5)
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/a.parquet", Body=stream.getvalue())
    manifest, table = run(tmp_path / "lake", [f"{s3_lake}/*.parquet"], scan={"chunk_records": 4})
    assert table.num_rows == 12 and manifest.inputs[0].bytes == len(stream.getvalue())


def test_a_folder_is_one_input_wherever_it_is(tmp_path: Path) -> None:
    for n, row in enumerate(ROWS):
        folder = tmp_path / "here" / f"{n % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n}.txt").write_text(row["text"])
        (folder / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([n]) * 50)
    first, table = run(tmp_path / "lake", [f"folder::{tmp_path}/here"])
    assert web.summary(first) == (12, 12, 0, 0) and len(first.inputs) == 1
    (tmp_path / "here").rename(tmp_path / "there")
    again, _ = run(tmp_path / "lake", [f"folder::{tmp_path}/there"])
    assert str(again) == str(first)
    (tmp_path / "there/0/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"other")
    _, changed = run(tmp_path / "lake", [f"folder::{tmp_path}/there"])
    ids, before = set(changed["id"].to_pylist()), set(table["id"].to_pylist())
    assert len(ids & before) == 11 and len(ids - before) == 1  # who a sample is, its image says too


def test_what_cannot_be_opened_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="`pip install gcsfs` on every node"):
        run(tmp_path / "lake", ["gs://bucket/*.parquet"])
