"""How long does `why URL` take on a ledger of millions of rows, and against a full scan of it?

Milliseconds are wall time of `lake.query.why.why` with its reads of manifests, in this process. `warm`: the store is
open, its pages are in memory. `cold`: the store is opened anew and the kernel was asked to drop the lake's pages before
every lookup (a disk's own cache stays warm). `command`: the whole `grist why`, mostly Python's start. Bytes are
counted at the store's edge. A scan is pyarrow reading every row of every ledger object and filtering by id, on the
warm files; ratios are CPU time. All must find the same rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.harness import Arm, Figure, Report, Row, Times, contest, figure, percentiles, require_equal
from benchmarks.ledgers import DATASET, Built, build
from gristmill.lake.accounts.identity import url_hash
from gristmill.lake.query.why import why
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table, scratch
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions

ROOT = Path(__file__).resolve().parents[1]


class Counting:
    """A store that counts the bytes that are read from it."""

    def __init__(self, store: Store) -> None:
        self._store, self.uri, self.bytes = store, store.uri, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: str) -> bytes:
        """As the store does."""
        data = self._store.get(key)
        self.bytes += len(data)
        return data

    def open(self, key: str) -> pa.NativeFile:
        """As the store does; reads of the file count as they happen."""
        return pa.PythonFile(_CountingFile(self._store.open(key), self), mode="r")


class _CountingFile:
    """No more than `pa.PythonFile` needs: shown a `read_buffer`, it would read past the count."""

    def __init__(self, file: pa.NativeFile, owner: Counting) -> None:
        self._file, self._owner = file, owner
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self._owner.bytes += len(data)
        return data


def by_why(versions: Versions, url: str) -> list[tuple[Any, ...]]:
    """What `why` tells of a URL, as rows."""
    stories = why(versions, url).stories
    return sorted((s.place.id, s.place.input, s.place.ordinal, s.fate, s.reason, s.value) for s in stories)


def by_scan(versions: Versions, url: str) -> list[tuple[Any, ...]]:
    """The same rows from a read of everything."""
    prefix, rows = url_hash(url), []
    for ref in versions.resolve(DATASET).ledgers:
        table = read_table(versions.store, ref)
        rows += table.filter(pc.starts_with(table["id"], prefix)).to_pylist()
    return _as_told(rows)


def by_one_scan(versions: Versions, urls: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of all URLs from one read of everything; never timed."""
    prefixes, rows = pa.array([url_hash(url) for url in urls]), []
    for ref in versions.resolve(DATASET).ledgers:
        table = read_table(versions.store, ref)
        heads = pc.utf8_slice_codeunits(table["id"], 0, len(prefixes[0].as_py()))
        rows += table.filter(pc.is_in(heads, prefixes)).to_pylist()
    return _as_told(rows)


def _as_told(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in ("id", "input", "ordinal", "fate", "reason", "value")) for row in rows)


def check(truth: list[tuple[Any, ...]], outcomes: Mapping[str, Any]) -> None:
    """Raises Differ unless every URL has its one row, and the rows are those of a scan."""
    looked_up, scanned = outcomes["why"], outcomes["scan"]
    require_equal("ledger: rows for a URL", [len(rows) for rows in looked_up], [1] * len(looked_up))
    require_equal(
        "ledger: rows of all URLs, why against a scan", sorted(row for rows in looked_up for row in rows), truth
    )
    require_equal("ledger: rows of the first URL, why against a scan", looked_up[0], scanned)


def against_scan(versions: Versions, urls: Sequence[str], rounds: int) -> Times:
    """CPU times of looking up all URLs, and of one scan."""
    arms = {
        "why": Arm(lambda: [by_why(versions, url) for url in urls]),
        "scan": Arm(lambda: by_scan(versions, urls[0])),
    }
    return contest(arms, rounds, partial(check, by_one_scan(versions, urls)))


def milliseconds(lookup: Callable[[str], object], urls: Sequence[str], prepare: Callable[[], object]) -> Figure:
    """Wall time of a lookup: median, 5th and 95th percentile. `prepare` is not timed."""
    taken = []
    for url in urls:
        prepare()
        started = time.perf_counter()
        lookup(url)
        taken.append(1000 * (time.perf_counter() - started))
    return percentiles(taken)


def forget_pages(folder: Path) -> None:
    """Asks the kernel to drop the folder's files from memory; needs no rights, and they were synced when written."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def command(folder: Path, url: str) -> None:
    """The whole command, in a process of its own."""
    arguments = [sys.executable, "-m", "gristmill.orchestration.cli.main", "why", url, "--lake", str(folder), "--json"]
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)


def bytes_read(folder: Path, urls: Sequence[str]) -> Figure:
    """Kilobytes read by a lookup in a store that was just opened."""
    counted = []
    for url in urls:
        store = Counting(open_store(str(folder), probe=False))
        why(Versions(store), url)
        counted.append(store.bytes / 1000)
    return percentiles(counted)


def measure(rows: int, rounds: int, probes: int) -> tuple[list[Row], dict[str, Any]]:
    """(figures, details) for a ledger of so many rows."""
    with scratch() as folder:
        store = open_store(str(folder))
        built: Built = build(store, rows, probes)
        urls, versions = built.urls, Versions(store)
        times = against_scan(versions, urls, rounds)
        scans = figure([1000 * seconds for seconds in times.wall["scan"]])
        warm = milliseconds(lambda url: why(versions, url), urls, lambda: None)
        cold = milliseconds(
            lambda url: why(Versions(open_store(str(folder), probe=False)), url), urls, lambda: forget_pages(folder)
        )
        whole = milliseconds(lambda url: command(folder, url), urls[: rounds + 1], lambda: None)
        read = bytes_read(folder, urls)
        size = sum(ref.bytes for ref in built.manifest.ledgers)
        ratio = Figure(*(value * len(urls) for value in times.ratio("scan", "why")))
    label, same = f"why, {rows:,} rows", f"the rows of all {len(urls)} URLs, against a scan"
    rows_of_size = [
        Row(f"{label}: warm", warm, "ms", same),
        Row(f"{label}: cold", cold, "ms", same),
        Row(f"{label}: bytes read, of {size / 1e6:,.0f} MB", read, "KB"),
        Row(f"{label}: full scan", scans, "ms", same),
        Row(f"{label}: full scan, CPU, times why", ratio, "x", same),
        Row(f"{label}: whole command", whole, "ms"),
    ]
    details = {
        "ledger_bytes": size,
        "objects": len(built.manifest.ledgers),
        "lookups": len(urls),
        "cpu_ms": {
            "why": 1000 * times.seconds("why").median / len(urls),
            "scan": 1000 * times.seconds("scan").median,
        },
    }
    return rows_of_size, details


def run(tiny: bool) -> Report:
    """The report; `tiny` with 20,000 rows."""
    sizes, rounds, probes = ((20_000,), 1, 10) if tiny else ((1_000_000, 4_000_000), 5, 100)
    rows: list[Row] = []
    details: dict[str, Any] = {}
    for size in sizes:
        measured, details[str(size)] = measure(size, rounds, probes)
        rows += measured
    note = "spread of lookups (ms, KB): 5th to 95th percentile over the URLs; of scans and ratios: over the rounds"
    data = f"generated ledgers of {' and '.join(f'{size:,}' for size in sizes)} rows in one version, local disk"
    return Report("ledger", data, rounds, tuple(rows), (note,), details)
