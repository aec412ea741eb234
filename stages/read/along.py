"""Reading along: records are read and judged while the boundary scan goes over their file, in one pass over its bytes.

A child process opens the file once, and inflates it once. The cutter finds spans as ever; those that are settled
(stages/containers/window.py) are read and judged in the same process by the stage's own code, which knows of no cutter.
The key of what was read needs the digest of the whole file, so the answers wait in a scratch file until the scan ends.
Then each chunk that has all of them becomes the work that it is without this, under the same key, with the answers in
the place of the file: objects, balance and receipt are made by the same code, and are the same.

What was not read along is read as ever: what lies behind a span that could not be settled in time, behind too many
answers, or behind a record that ended the child. The chunk in which that begins is gone on with at once, so that no
record is judged twice, and the one at fault gets its fate. A chunk in which the stage itself fails is left to its own
work, which raises what it raises.
"""

from __future__ import annotations

import logging
import pickle
import tempfile
import time
from array import array
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

import pyarrow as pa

from gristmill.lake.accounts.receipt import finished
from gristmill.lake.inputs.files import InputInfo
from gristmill.lake.inputs.sources import open_input
from gristmill.lake.store.base import Store
from gristmill.stages.containers import Item, Record, ScanResult, Settled, Window, scan, scan_along
from gristmill.stages.containers.window import WINDOW
from gristmill.stages.core.work import Outcome, Work, execute
from gristmill.stages.read.inputs import ScannedInput
from gristmill.stages.read.isolated import ChildDied, ChildTimeout, child, watchdog
from gristmill.stages.read.reading import Reader, ReadStage, hung, read_works
from gristmill.stages.read.scan import ScanFacts
from gristmill.stages.read.suppress import Listed

log = logging.getLogger("gristmill")

MOST = 256 << 20
"""Bytes of answers that wait for a file's digest; with them it bounds what a kill loses. Some 25,000 web pages."""
IN_MEMORY = 8 << 20
"""Bytes of them that wait in memory."""


@dataclass(frozen=True)
class ReadAlong:
    """Reads by `stage`, without what is on the list. `most`: bytes of answers; `window`: bytes that wait to be
    settled."""

    stage: ReadStage
    listed: Listed | None = None
    most: int = MOST
    window: int = WINDOW

    @contextmanager
    def scan(self, uri: str, kind: str) -> Iterator[ScannedAlong]:
        """Scans an input, and reads as much of it as can be. Raises as `stages.containers.scan`."""
        with _scratch() as file:
            answers, stage = _Answers(file), cast(Reader[Any], self.stage)
            try:
                result = self._answered(uri, kind, answers)
            except (ChildDied, ChildTimeout) as error:  # what was answered before is good
                with open_input(uri) as stream:
                    result = scan(stream, kind)
                if isinstance(error, ChildTimeout) and answers.count < result.spans.num_rows:
                    answers.add(pickle.dumps(hung(stage, result.spans, answers.count)))  # one deadline is enough
                answers.settle()
            yield ScannedAlong(self, result, answers)

    def _answered(self, uri: str, kind: str, answers: _Answers) -> ScanResult:
        """The scan, its answers put by. Raises ChildDied or ChildTimeout at the record behind them."""
        timed = cast(Reader[Any], self.stage).seconds_per_record is not None
        arguments = self.stage, uri, kind, self.most, self.window
        result: ScanResult | None = None
        for part in child().iterate(_scan_and_judge, *arguments) if timed else _scan_and_judge(*arguments):
            if isinstance(part, ScanResult):
                result = part  # the last one; a child of which it is not heard that it is done is ended
            elif isinstance(part, int):
                answers.end(part)
            else:
                answers.add(part)
        assert result is not None
        answers.settle()
        return result


@dataclass(frozen=True)
class ScannedAlong:
    """A scan (`result`), and what of the file was read meanwhile."""

    along: ReadAlong
    result: ScanResult
    answers: _Answers

    def prove(self, store: Store, info: InputInfo, outcome: Outcome) -> None:
        """Does the works of the chunks that have answers, unless they were done before. `info`, `outcome`: of the scan.
        Raises as `execute`."""
        facts, received, spans = outcome.facts, outcome.received, outcome.outputs[0]
        assert isinstance(facts, ScanFacts) and received is not None
        scanned = ScannedInput(
            self.result.sha256, (info.uri,), info.stamp, facts.bytes, facts.kind, spans, facts.chunks, received
        )
        answers, listed = self.answers, self.along.listed
        for plain in read_works(self.along.stage, [scanned]):
            first, rows = plain.payload.first, plain.payload.rows
            answered = min(rows, answers.count - first)
            if answered <= 0 or (answered < rows and answers.failed):
                return
            given = answers.of(self.result.spans.slice(first, answered))
            work: Work[Any] = replace(plain, payload=replace(plain.payload, answers=given))
            if listed is not None:
                work = listed.work(work)
            if finished(store, work.key) is None:
                execute(store, work, answers.seconds(first, answered))


@contextmanager
def _scratch() -> Iterator[BinaryIO]:
    """A file for answers."""
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115  below
    try:
        yield file
    finally:
        with suppress(OSError):  # of a full disk, which is given once more what it did not take
            file.close()


class _Answers:
    """Items, without their content, and the judgements on them, in order of the spans, in a file. `failed`: the stage
    failed behind them, or the file did, and there are none."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._starts = array("q")
        self._begun, self._came = time.monotonic(), array("d")  # seconds, of each answer
        self.failed = self._lost = False

    @property
    def count(self) -> int:
        return len(self._starts)

    def add(self, answer: bytes) -> None:
        """The next one, pickled."""
        with self._or_none():
            if not self._lost:
                self._starts.append(self._file.tell())
                self._came.append(time.monotonic())
                self._file.write(answer)

    def settle(self) -> None:
        """All are written, or there are none."""
        with self._or_none():
            if not self._lost:
                self._file.flush()

    @contextmanager
    def _or_none(self) -> Iterator[None]:
        """A scratch disk that is full costs the answers, which the works of the chunks come to as well, and no run."""
        try:
            yield
        except OSError as error:
            log.warning(
                "what is read along cannot be put by in %s, and is read once more: %s", tempfile.gettempdir(), error
            )
            self._lost = True
            self.end(0)

    def end(self, count: int) -> None:
        """The stage failed behind the first `count`: the others do not count."""
        del self._starts[count:], self._came[count:]
        self.failed = True

    def seconds(self, first: int, count: int) -> float:
        """What these took, the scan of their file among it."""
        return self._came[first + count - 1] - (self._came[first - 1] if first else self._begun)

    def of(self, spans: pa.Table) -> Iterator[tuple[Item, Any]]:
        """Those on some spans, at least one. Raises OSError for a record that has another place now."""
        self._file.seek(self._starts[spans["ordinal"][0].as_py()])
        for ordinal, *place in zip(*(spans[name].to_pylist() for name in ("ordinal", "start", "length")), strict=True):
            item, judgement = pickle.load(self._file)
            # After a death the file was scanned once more. An item of another span is the balance's to find.
            if item.ordinal == ordinal and [item.start, item.length] != place:
                raise OSError(f"record {ordinal} is not where it was: the file changed while it was read")
            yield item, judgement


def _scan_and_judge(stage: ReadStage, uri: str, kind: str, most: int, size: int) -> Iterator[bytes | int | ScanResult]:
    """What the child does: an answer on each span as it is settled; where the stage fails, how many answers are good;
    the scan at last."""
    window, given, sent = Window(size), 0, 0
    with open_input(uri) as stream:
        for part in scan_along(stream, kind, window):
            if isinstance(part, ScanResult):
                yield part
                return
            good = given
            try:
                with closing(_judged(cast(Reader[Any], stage), kind, part)) as judged:
                    for answer in judged:
                        yield answer
                        given, sent = given + 1, sent + len(answer)
                        if sent > most:
                            break
                is_whole = sent > most or given == good + part.spans.num_rows
            except Exception as error:
                log.debug("reading along ended with %r", error)
                is_whole = False
            # Where the stage fails, or its reader contradicts the cutter, the work of the chunk meets it and raises.
            if not is_whole:
                yield good
            if not is_whole or sent > most:
                window.close()


def _judged(stage: Reader[Any], kind: str, part: Settled) -> Generator[bytes]:
    """An answer on each item. Each record has its time, and the scan none."""
    seconds = stage.seconds_per_record or 0
    watchdog.feed(seconds)
    try:
        for item in stage.items(part.open_at, part.spans, kind):
            answer = pickle.dumps((item.without_content() if isinstance(item, Record) else item, stage.judge(item)))
            with watchdog.asleep():
                yield answer
            watchdog.feed(seconds)
    finally:
        watchdog.feed(0)
