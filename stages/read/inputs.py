"""Inputs: from patterns to a set of content digests, each scanned once in the life of a lake.

A file is known by its bytes. An earlier scan of it is looked up by (address, size, times or etag), which is
only a shortcut: the digest decides. A file listed twice, or a copy at another path, is one input.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.inputs.files import InputFault, InputInfo
from gristmill.lake.inputs.notes import known
from gristmill.lake.inputs.sources import input_info, open_input, survey
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.store.outage import is_outage
from gristmill.lake.versions.manifest import InputFile
from gristmill.stages.containers import UnsupportedContainer, detect
from gristmill.stages.core.work import Work
from gristmill.stages.read.scan import HEAD_BYTES, Scan, ScanFacts, ScanPayload
from gristmill.stages.run.runner import Runner

log = logging.getLogger("gristmill")

SHOWN = 50
"""Faults that a message names."""


@dataclass(frozen=True)
class ScannedInput:
    """One input by content. `chunks` are (first row, rows) of the span table; `stamp` proves the file unchanged.
    `shard_of`: of a version of this lake, which and the number of the shard; its rows keep their ids."""

    digest: str
    uris: tuple[str, ...]
    stamp: tuple[Any, ...]
    bytes: int
    kind: str
    spans: ObjectRef
    chunks: tuple[tuple[int, int], ...]
    tally: Tally
    shard_of: str = ""

    @property
    def records(self) -> int:
        """How many spans the scan counted, damage among them: each gets a fate."""
        return self.tally.count

    def as_input(self) -> InputFile:
        """As a manifest has it."""
        names = (self.shard_of,) if self.shard_of else self.uris
        return InputFile(digest=self.digest, bytes=self.bytes, records=self.records, names=names)


class EmptyInputs(ValueError):
    """Files in which there is no record."""


class Listing(NamedTuple):
    """The files that patterns name, in order, once; and a sentence for each thing that could not be listed:
    patterns that match nothing, broken links, unreadable folders."""

    uris: list[str]
    faults: list[str]


def list_inputs(patterns: Iterable[str]) -> Listing:
    """Raises ValueError for another scheme, and for a name that is not UTF-8: the manifest, which names its inputs,
    could not be written."""
    uris: list[str] = []
    faults: list[str] = []
    for pattern in patterns:
        try:
            matched = survey(pattern)
        except OSError as error:
            if is_outage(error):
                raise
            faults.append(str(error))
            continue
        uris += matched.files
        faults += matched.faults
        for again in matched.again:
            log.warning("input %r: %s", pattern, again)
    for uri in uris:
        if not uri.isascii() and any("\ud800" <= char <= "\udfff" for char in uri):
            raise ValueError(f"input {uri!r}: its name is not UTF-8; rename it (the name is no part of any key)")
    return Listing(list(dict.fromkeys(uris)), faults)


def find_inputs(patterns: Iterable[str]) -> list[str]:
    """The files of `list_inputs`. Raises OSError for its faults."""
    uris, faults = list_inputs(patterns)
    if faults:
        raise OSError(_all_of(faults))
    return uris


def _all_of(faults: Sequence[str]) -> str:
    """One fault as it is, several under a headline."""
    if len(faults) == 1:
        return faults[0]
    shown = "".join(f"\n  {fault}" for fault in faults[:SHOWN])
    more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"{len(faults)} inputs cannot be used:{shown}{more}"


def scan_inputs(
    runner: Runner, stage: Scan, files: Listing, limit: int | None = None, *, allow_empty: bool = False
) -> list[ScannedInput]:
    """The inputs by content, sorted by digest. `limit` takes only as many files, in order, as hold so many records.

    Raises UnsupportedContainer before any work, for all files that cannot be read, and EmptyInputs for files without
    a record unless they are allowed.
    """
    if limit is None:
        receipts = _scan(runner, stage, files, allow_empty)
    else:
        # One after the other: a preview of a crawl must not scan all of it. Faults of the listing are raised first.
        receipts = []
        for number, uri in enumerate(files.uris):
            receipts += _scan(runner, stage, Listing([uri], [] if number else files.faults), allow_empty)
            different = {receipt.inputs[0]: receipt.received.count for _, receipt in receipts}
            if sum(different.values()) >= limit:
                break
    by_digest: dict[str, ScannedInput] = {}
    for info, receipt in receipts:
        scanned = _scanned(info, receipt)
        before = by_digest.get(scanned.digest)
        by_digest[scanned.digest] = scanned if before is None else replace(before, uris=(*before.uris, info.uri))
    if empty := [info.uri for info, receipt in receipts if not receipt.received.count and not allow_empty]:
        raise EmptyInputs(_all_of([f"{uri} holds no record" for uri in empty]))
    if copies := len(receipts) - len(by_digest):
        log.info("%d of %d files have the bytes of another and count once", copies, len(receipts))
    return _limited([by_digest[digest] for digest in sorted(by_digest)], limit)


def _limited(inputs: list[ScannedInput], limit: int | None) -> list[ScannedInput]:
    """The inputs up to the record with which `limit` is reached; the last chunk is cut, and tallies are of the rest."""
    if limit is None:
        return inputs
    result: list[ScannedInput] = []
    for scanned in inputs:
        chunks = []
        for first, rows in scanned.chunks:
            rows = min(rows, limit)
            limit -= rows
            if rows:
                chunks.append((first, rows))
        if chunks:
            rows = sum(n for _, n in chunks)
            tally = Tally.of_records([scanned.digest] * rows, range(rows))
            result.append(replace(scanned, chunks=tuple(chunks), tally=tally))
    return result


def _scan(runner: Runner, stage: Scan, files: Listing, allow_empty: bool) -> list[tuple[InputInfo, Receipt]]:
    previews = _readable(runner.store, files, allow_empty)
    works = [
        Work(stage=stage, inputs=before, payload=ScanPayload(info.uri), label=info.uri) for info, before in previews
    ]
    return list(zip((info for info, _ in previews), runner.map("scan", works), strict=True))


Preview = tuple[InputInfo, tuple[str, str] | None]
"""Size and age of an input; digest and kind, if this lake has scanned it as it is now."""


def _readable(store: Store, files: Listing, allow_empty: bool) -> list[Preview]:
    """Checks each input before any work, its first bytes too if it was not scanned before."""

    def preview(uri: str) -> Preview | str:
        try:
            info = input_info(uri)
            before = known(store, info)
            if info.size and before is None:
                with open_input(uri) as stream:
                    detect(uri, stream.read(HEAD_BYTES))
            return info, before
        except UnsupportedContainer as error:
            return str(error)
        except (FileNotFoundError, PermissionError) as error:
            return f"{uri} cannot be read: {error.strerror or error}"
        except InputFault as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(preview, files.uris))
    faults = [*files.faults, *(answer for answer in answers if isinstance(answer, str))]
    previews = [answer for answer in answers if not isinstance(answer, str)]
    empty = [f"{info.uri} is empty: it has 0 bytes" for info, _ in previews if not info.size and not allow_empty]
    if faults:  # no rerun will help
        raise UnsupportedContainer(_all_of([*faults, *empty]))
    if empty:
        raise EmptyInputs(_all_of(empty))
    return previews


def _scanned(info: InputInfo, receipt: Receipt) -> ScannedInput:
    facts = receipt.facts_as(ScanFacts)
    return ScannedInput(
        digest=receipt.inputs[0],
        uris=(info.uri,),
        stamp=info.stamp,
        bytes=facts.bytes,
        kind=facts.kind,
        spans=receipt.output("spans"),
        chunks=facts.chunks,
        tally=receipt.received,
    )
