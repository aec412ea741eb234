"""Scans: every file is looked at before any is scanned, and scanned before any is read.

What holds nothing that can be read (no format that is known, no byte, no record, damage alone) is a fault of the file:
either all such files are named and nothing is done, or each is an input that is quarantined whole, so that it has its
row in the ledger. What is not there at all (a link that leads nowhere, a file that may not be opened) has no content by
which it could be an input; it is named and nothing is done.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.inputs.files import InputFault, InputInfo
from gristmill.lake.inputs.notes import known
from gristmill.lake.inputs.sources import input_info, open_input
from gristmill.lake.store.objects import read_table
from gristmill.stages.containers import UNREADABLE, UnsupportedContainer, detect
from gristmill.stages.core.work import Work
from gristmill.stages.read.listing import Listing, all_of
from gristmill.stages.read.scan import HEAD_BYTES, NO_RECORD, Alongside, ReadsAlong, Scan, ScanPayload, scan_inputs_of
from gristmill.stages.run.runner import Runner

log = logging.getLogger("gristmill")

NO_BYTE = "it has 0 bytes"
FEW = 64
"""Of a file with more spans than these it is not asked whether all are damage: their number is a matter for the
recipe's limit on quarantined records."""
QUARANTINED = "cannot be read and are quarantined"
FILES_A_WORKER = 2
"""Files from which on each is read by the worker that scans it. With fewer, workers would have nothing to do where the
chunks of one file are work for many."""
ONE_CHUNK = 4
"""Times that crawls are longer decompressed, about: a file that is so much smaller than a chunk is work for one."""


class EmptyInputs(ValueError):
    """Files in which there is no record that can be read."""


class _Preview(NamedTuple):
    """What is known of an input before it is scanned. `before`: digest and kind, if this lake has scanned it as it is
    now. `fault`: why it cannot be read, and `message` the same for people, who are told its name."""

    info: InputInfo
    before: tuple[str, str] | None
    fault: str = ""
    message: str = ""


@dataclass(frozen=True)
class Scans:
    """How files are scanned. `allow_empty`: a file without a record is as it should be. `quarantine`: what cannot be
    read is an input of one record, its kind UNREADABLE; else it is an error. `along`: who reads records of new files
    while they are scanned, asked only where there are such files; None: nobody."""

    runner: Runner
    stage: Scan
    allow_empty: bool = False
    quarantine: bool = False
    along: Callable[[], Alongside | None] | None = None

    def of(self, files: Listing) -> list[tuple[InputInfo, Receipt]]:
        """What is known of each file, and the receipt of its scan, in order.

        Raises UnsupportedContainer and, for files of no byte, EmptyInputs before any work; EmptyInputs after it for
        those in which nothing was found.
        """
        previews = self._previews(files)
        receipts = self._run(previews)
        hollow = [
            _Preview(
                preview.info, (receipt.inputs[0], UNREADABLE), fault, f"{preview.info.uri} {fault.removeprefix('it ')}"
            )
            for preview, receipt in zip(previews, receipts, strict=True)
            if (fault := "" if preview.fault else self._fault(receipt))
        ]
        if hollow and not self.quarantine:
            raise EmptyInputs(all_of([preview.message for preview in hollow]))
        if named := [preview.message for preview in (*previews, *hollow) if preview.fault]:
            log.warning("%s", all_of(named, QUARANTINED))
        # Damage has spans, and by them its rows; a file without any gets one.
        bare = [preview for preview in hollow if preview.fault == NO_RECORD]
        rows = {preview.info.uri: receipt for preview, receipt in zip(bare, self._run(bare), strict=True)}
        infos = [preview.info for preview in previews]
        return [(info, rows.get(info.uri, receipt)) for info, receipt in zip(infos, receipts, strict=True)]

    def _run(self, previews: Sequence[_Preview]) -> list[Receipt]:
        works = []
        along = self._along(previews)
        for info, before, fault, _ in previews:
            digest, kind = before or ("", "")
            inputs = scan_inputs_of(digest, UNREADABLE if fault else kind, fault) if before else None
            payload = ScanPayload(info.uri, fault, along.get(info.uri))
            works.append(Work(stage=self.stage, inputs=inputs, payload=payload, label=info.uri))
        return self.runner.map("scan", works) if works else []

    def _along(self, previews: Sequence[_Preview]) -> dict[str, ReadsAlong]:
        """By address, who reads a file while it is scanned: where no worker is idle for it, and where it is not read in
        vain, as a file that was moved or copied would be, which is known by its digest alone; so by its size here."""
        new = [preview.info for preview in previews if preview.before is None and not preview.fault]
        if self.along is None or self.runner.plan or not new:
            return {}
        workers, count = self.runner.workers, len(new)
        if workers > 1 and len(new) < FILES_A_WORKER * workers:
            new = [info for info in new if info.size * ONE_CHUNK <= self.stage.chunk_bytes]
        sizes = Counter(preview.info.size for preview in previews)
        once = [info for info in new if sizes[info.size] == 1]
        alongside = self.along() if once else None
        if alongside is None:
            return {}
        along = {info.uri: alongside.reader for info in once if info.size not in alongside.sizes}
        if along:
            log.info("scan: %d of %d new files are read as they are scanned", len(along), count)
        return along

    def _fault(self, receipt: Receipt) -> str:
        """Why nothing that was scanned can be read; "" where something can, or nothing is needed."""
        records = receipt.received.count
        if not records:
            return "" if self.allow_empty else NO_RECORD
        if records > FEW:
            return ""
        errors = read_table(self.runner.store, receipt.output("spans"), ["error"])["error"].to_pylist()
        return f"it holds no record that can be read: {errors[0]}" if all(errors) else ""

    def _previews(self, files: Listing) -> list[_Preview]:
        """Looks at each file, at its first bytes too if it was not scanned before. Raises as `of`."""
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(self._preview, files.uris))
        gone = [*files.faults, *(answer for answer in answers if isinstance(answer, str))]
        previews = [answer for answer in answers if not isinstance(answer, str)]
        refused = [] if self.quarantine else [preview for preview in previews if preview.fault]
        messages = [preview.message for preview in refused]
        if gone or any(preview.info.size for preview in refused):  # no rerun will help
            raise UnsupportedContainer(all_of([*gone, *messages]))
        if refused:
            raise EmptyInputs(all_of(messages))
        return previews

    def _preview(self, uri: str) -> _Preview | str:
        """What is known of a file; of one that is not there, or may not be read, what is wrong."""
        try:
            info = input_info(uri)
            before = known(self.runner.store, info)
            if not info.size and not self.allow_empty:
                return _Preview(info, before, NO_BYTE, f"{uri} is empty: {NO_BYTE}")
            if info.size and (before is None or before[1] == UNREADABLE):
                with open_input(uri) as stream:
                    head = stream.read(HEAD_BYTES)
                try:
                    detect(uri, head)
                except UnsupportedContainer as error:
                    return _Preview(info, before, error.fault, str(error))
            # It can be read by now, or is allowed to be empty.
            return _Preview(info, None if before is None or before[1] == UNREADABLE else before)
        except (FileNotFoundError, PermissionError) as error:
            return f"{uri} cannot be read: {error.strerror or error}"
        except InputFault as error:
            return str(error)
