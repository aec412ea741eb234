"""What sources declare of their use is kept beside the text where it is asked for, and can be filtered on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import web
from warc_files import http, line, page, record

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.settings.config import BadConfig

TEXT = "Night {}. " + "The keeper climbed the stair, and the wind was with him when he came to the lamp. " * 9
COLUMNS = ["license", "robots", "tdm_reservation", "tdm_policy"]


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """Pages 0 to 3 of a WARC, rows 4 and 5 of JSON lines, 6 and 7 of Parquet."""
    folder = tmp_path / "crawl"
    folder.mkdir()
    by = '<link rel="license" href="https://creativecommons.org/licenses/by/4.0/">'
    pages = [
        ("", ()),
        (by, ()),
        ("", ("X-Robots-Tag: noai",)),
        ('<meta name="tdm-reservation" content="1">', ("TDM-Policy: https://a.example/tdm.json",)),
    ]
    warc = [
        record(
            http(f"<html><head>{head}</head><body><p>{TEXT.format(n)}</p></body></html>".encode(), *headers),
            number=n,
            url=f"http://a.example/{n}",
        )
        for n, (head, headers) in enumerate(pages)
    ]
    (folder / "a.warc").write_bytes(b"".join(warc))
    row: dict[str, Any] = {"text": TEXT.format(4), "url": "http://a.example/4", "date": "2023-01-01", "license": "MIT"}
    bare = {"text": TEXT.format(5), "url": "http://a.example/5"}
    (folder / "b.jsonl").write_bytes(line(**row) + line(**bare))
    table = [
        {**row, "text": TEXT.format(6), "url": "http://a.example/6", "license": "CC0", "robots": "noindex"},
        {**row, "text": TEXT.format(7), "url": "http://a.example/7", "license": None, "robots": None},
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "c.parquet")
    return folder


def run(folder: Path, crawl: Path, **recipe: Any) -> tuple[Manifest, dict[int, tuple[Any, ...]]]:
    """The version, and of each document that it keeps what is declared."""
    manifest = web.run(folder, [crawl / "*"], minhash=None, **recipe).manifest
    rows = Dataset(open_store(str(folder)), manifest).to_arrow().to_pylist()
    return manifest, {int(row["url"][-1]): tuple(row.get(name) for name in COLUMNS) for row in rows}


def reasons(manifest: Manifest) -> dict[str, int]:
    return {reason: n for row in manifest.funnel for reason, n in row.dropped.items()}


def test_by_default_nothing_is_kept_and_the_version_is_what_it_was(crawl: Path, tmp_path: Path) -> None:
    manifest, rows = run(tmp_path / "lake", crawl)
    assert set(rows.values()) == {(None,) * 4} and "license" not in manifest.schemas["shard"]
    assert "rights" not in manifest.recipe and "rights" not in manifest.recipe["extract"]


def test_what_is_declared_stands_beside_the_text(crawl: Path, tmp_path: Path) -> None:
    manifest, rows = run(tmp_path / "lake", crawl, extract={"rights": {}})
    assert rows == {
        0: (None, None, None, None),
        1: ("cc-by-4.0", None, None, None),
        2: (None, "noai", None, None),
        3: (None, None, "1", "https://a.example/tdm.json"),
        4: ("mit", None, None, None),
        5: (None, None, None, None),
        6: ("cc0", "noindex", None, None),
        7: (None, None, None, None),
    }
    assert reasons(manifest) == {}
    # A version is an input like files, and passes on what it has.
    again = web.run(tmp_path / "lake", ["web@v1"], minhash=None, dataset="again", extract={"rights": {}}).manifest
    table = Dataset(open_store(str(tmp_path / "lake")), again).to_arrow()
    assert {int(row["url"][-1]): tuple(row[name] for name in COLUMNS) for row in table.to_pylist()} == rows


def test_it_is_filtered_on(crawl: Path, tmp_path: Path) -> None:
    manifest, rows = run(tmp_path / "lake", crawl, rights={})
    assert sorted(rows) == [0, 1, 4, 5, 6, 7]
    assert reasons(manifest) == {"rights.robots": 1, "rights.tdm_reserved": 1}
    (row,) = [row for row in manifest.funnel if row.stage == "rights"]
    assert (row.received, row.passed) == (8, 6)
    strict = {"licenses": ["cc-by", "cc0"], "crawled_from": "2023-06"}
    manifest, rows = run(tmp_path / "lake", crawl, rights=strict)
    assert rows == {1: ("cc-by-4.0", None, None, None)}
    assert reasons(manifest) == {"rights.no_license": 5, "rights.license": 1, "rights.too_early": 1}


def test_a_threshold_reads_nothing_again(crawl: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run(tmp_path / "lake", crawl, rights={})
    monkeypatch.setattr("gristmill.stages.text.extract.declared_of", None)
    _, rows = run(tmp_path / "lake", crawl, rights={"robots": [], "tdm_reserved": True})
    assert sorted(rows) == list(range(8))


def test_rows_of_one_dataset_have_the_same_columns(crawl: Path, tmp_path: Path) -> None:
    run(tmp_path / "lake", crawl, extends="web")
    (crawl / "d.warc").write_bytes(page(9))
    for setting in ({"rights": {}}, {"extract": {"rights": {}}}):
        with pytest.raises(
            BadConfig, match=r"web@v1 does not have columns of what is declared, which this recipe keep"
        ):
            run(tmp_path / "lake", crawl, extends="web", **setting)
    run(tmp_path / "other", crawl, extends="web", rights={})
    (crawl / "e.warc").write_bytes(page(8))
    assert run(tmp_path / "other", crawl, extends="web", extract={"rights": {}})[0].version == 2
    (crawl / "f.warc").write_bytes(page(7))
    with pytest.raises(BadConfig, match=r"web@v2 has columns of what is declared, which this recipe does not keep"):
        run(tmp_path / "other", crawl, extends="web")
