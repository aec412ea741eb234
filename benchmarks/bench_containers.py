"""What does reading a crawl twice cost? Our boundary scan and reader against FastWARC's iterator alone.

FastWARC parses and yields every body, decoded, which is the work of any reader. Ours inflates each file twice: once to
find where records stand, hash the file and tile it with spans (the input side of the balance), once to read along
those spans, with a SHA-256 of every block for its identity. So it must lose here; the figures say by how much.
`scan` and `read` run apart. Ids of all records and digests of the bodies are compared in every round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
from fastwarc.warc import ArchiveIterator

from benchmarks.harness import Arm, Differ, Figure, Report, Row, Times, contest, figure, require_equal
from benchmarks.material import crawls
from gristmill.stages.containers import ReadConfig, Record, read, scan

BODILESS = ("request", "revisit")  # FastWARC takes their HTTP header off, which is all they have


class Item(NamedTuple):
    """A record as both readers see it."""

    id: str
    kind: str  # of ours; FastWARC's are matched by place
    body: bytes


def by_scan(path: Path) -> pa.Table:
    """The spans of a file, by the boundary scan."""
    with path.open("rb") as stream:
        return scan(stream, "warc").spans


def by_reader(path: Path, spans: pa.Table) -> list[Item]:
    """The records along these spans."""
    return [_item(record) for record in read(_opener(path), spans, "warc", ReadConfig())]


def by_fastwarc(path: Path) -> list[Item]:
    """The records as FastWARC yields them."""
    with path.open("rb") as stream:
        records = ArchiveIterator(stream, parse_http=True, auto_decode="all")
        return [Item(record.record_id or "", "", record.reader.read()) for record in records]


def _item(record: Any) -> Item:
    if not isinstance(record, Record):
        raise Differ(f"containers: record {record.ordinal} cannot be read: {record.error}; take undamaged files")
    body = record.payload if record.text is None else record.text.encode()
    return Item(record.warc_id or "", record.record_type, body)


def _opener(path: Path) -> Callable[[int], BinaryIO]:
    def open_at(offset: int) -> BinaryIO:
        stream = path.open("rb")
        stream.seek(offset)
        return stream

    return open_at


def check(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ unless both read the same ids and bodies, and the scan found every record."""
    items, reference = outcomes["read"], outcomes["FastWARC"]
    spans = outcomes["scan"]
    if spans.num_rows != len(items) or spans["error"].null_count != spans.num_rows:
        raise Differ(f"containers: the scan found {spans.num_rows} spans for {len(items)} records, or damage")
    require_equal("containers: ids, ours against FastWARC's", _ids(items), _ids(reference))
    require_equal(
        "containers: bodies, ours against FastWARC's", list(_digests(items, items)), list(_digests(items, reference))
    )


def _ids(items: list[Item]) -> list[str]:
    return [item.id.strip("<>") for item in items]


def _digests(kinds: list[Item], items: list[Item]) -> Iterator[str]:
    for known, item in zip(kinds, items, strict=True):
        yield "" if known.kind in BODILESS else hashlib.sha256(item.body).hexdigest()


def contest_on(path: Path, rounds: int) -> Times:
    """All three on one file."""
    spans = by_scan(path)
    arms = {
        "scan": Arm(lambda: by_scan(path)),
        "read": Arm(lambda: by_reader(path, spans)),
        "FastWARC": Arm(lambda: by_fastwarc(path)),
    }
    return contest(arms, rounds, check)


def rows_of(label: str, times: Times) -> list[Row]:
    """The figures of one file."""
    items = times.outcomes["read"]
    bodies = sum(item.kind not in BODILESS for item in items)
    same = f"{len(items)} ids, SHA-256 of {bodies} bodies"
    size = sum(times.outcomes["scan"]["length"].to_pylist()) / 1e6
    total = times.seconds("scan", "read")
    speed = Figure(size / total.median, size / total.high, size / total.low)
    share = figure([100 * ratio for ratio in times.ratio("scan", ("scan", "read"))])
    return [
        Row(f"{label}: scan + read costs, times FastWARC", times.ratio(("scan", "read"), "FastWARC"), "x", same),
        Row(f"{label}: read alone costs, times FastWARC", times.ratio("read", "FastWARC"), "x", same),
        Row(f"{label}: scan's share of scan + read", share, "%", same),
        Row(f"{label}: scan + read, decompressed, a CPU-second", speed, "MB/s"),
    ]


def run(tiny: bool) -> Report:
    """The report; `tiny` on a generated crawl."""
    rounds = 1 if tiny else 9
    rows: list[Row] = []
    details: dict[str, Any] = {}
    with crawls(tiny) as crawl_files:
        for path in crawl_files.paths:
            times = contest_on(path, rounds)
            rows += rows_of(path.name, times)
            details[path.name] = {
                "bytes": path.stat().st_size,
                "records": len(times.outcomes["read"]),
                "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            }
        source = crawl_files.named(*crawl_files.paths)
    note = "above 1 x means slower than FastWARC; the scan is the input side of the balance, and finds damage"
    return Report("containers", source, rounds, tuple(rows), (note,), details)
