"""How fast are runs of 50 words that an earlier text has found and cut out, and in how much memory?

Texts of real sentences (benchmarks/dedup_material.py), of which each tenth takes a stretch of an earlier one. Runs of
50 words are hashed, found and cut, or texts dropped, by the stages of the pipeline, timed in this process; memory is
that of two workers (benchmarks/pool.py) for some texts and ten times as many. What is cut has to be what plain Python
cuts. There is no peer: suffix arrays over texts (Lee et al. 2021, datatrove's and text-dedup's way) want a program in
Rust that comes in no wheel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.dedup_chain import Stopwatch
from benchmarks.dedup_material import material, put_chunks
from benchmarks.harness import Arm, Differ, Figure, Places, Report, Row, Times, alone, contest, figure, require_equal
from benchmarks.pool import START, Memory, pool_runner
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table, scratch
from gristmill.lake.store.opening import open_store
from gristmill.stages.core.records import CONTENT, EXCLUDED, Chunk, Records
from gristmill.stages.dedup.substrings import Substrings
from gristmill.stages.run.runner import Runner

RUN = 50
CUT, DROP = Substrings(RUN, repeated="cut"), Substrings(RUN)
TAKES, LEAST, MOST = 0.1, 60, 200
"""How many texts take a stretch of another, and how many words of it."""
WORKERS, TIMES = 2, 10
_WORD = re.compile("[a-z]+")


def texts_of(tiny: bool, count: int) -> tuple[str, list[str]]:
    """Where the texts are from, and the texts: lower case words with a space between them, so that a text is its
    words."""
    drawn = material(tiny, count)
    rng = np.random.default_rng(2)
    rows = [_WORD.findall(text.lower()) for text in drawn.texts]
    for number, row in enumerate(rows):
        if number and rng.random() < TAKES:
            other, at = rows[rng.integers(number)], int(rng.integers(len(row) + 1))
            start = int(rng.integers(max(1, len(other) - LEAST)))
            row[at:at] = other[start : start + int(rng.integers(LEAST, MOST))]
    return drawn.source, [" ".join(row) for row in rows]


def by_python(texts: Sequence[str]) -> list[str | None]:
    """What each text becomes; None: it is dropped, because fewer than `min_words` words are left of it."""
    known: set[int] = set()
    cut: list[str | None] = []
    for text in texts:
        words = text.split()
        runs = [hash(tuple(words[at : at + RUN])) for at in range(len(words) - RUN + 1)]
        stays = np.ones(len(words), bool)
        for at, run in enumerate(runs):
            if run in known:
                stays[at : at + RUN] = False
        known.update(runs)
        left = [word for word, is_left in zip(words, stays.tolist(), strict=True) if is_left]
        is_kept = len(left) == len(words) or len(left) >= CUT.min_words
        cut.append(" ".join(left) if is_kept else None)
    return cut


def judged(runner: Runner, chunks: Sequence[Chunk], substrings: Substrings) -> list[Receipt]:
    """The receipts of the last stage."""
    comparison = substrings.comparison
    hashed = runner.map(comparison.hashing.name, [comparison.hash_work(chunk) for chunk in chunks])
    return comparison.judge(runner, Records.of(chunks), hashed, ())[0]


def by_stages(store: Store, receipts: Sequence[Receipt], chunks: Sequence[Chunk]) -> list[str | None]:
    """What each text became, in order."""
    cut: list[str | None] = []
    for chunk, receipt in zip(chunks, receipts, strict=True):
        table = read_table(store, receipt.output(CONTENT), ["ordinal", "text"])
        left = dict(zip(table["ordinal"].to_pylist(), table["text"].to_pylist(), strict=True))
        cut += [left.get(ordinal) for ordinal in range(chunk.content.records)]
    return cut


def timed(texts: Sequence[str], rounds: int) -> Times:
    """Both ways, each on a lake of its own. Raises Differ where a text is cut otherwise than by plain Python."""
    expected = by_python(texts)
    with scratch() as folder:
        places = Places(folder)
        prepared: dict[str, tuple[Store, list[Chunk]]] = {}

        def arm(name: str, substrings: Substrings) -> Arm:
            def prepare() -> None:
                store = open_store(str(places.fresh()))
                prepared[name] = store, put_chunks(store, list(texts))

            def run() -> list[Receipt]:
                store, chunks = prepared[name]
                return judged(Stopwatch(store), chunks, substrings)

            return Arm(run, prepare)

        def check(outcomes: Mapping[str, Any]) -> None:
            store, chunks = prepared["cut"]
            require_equal("texts", by_stages(store, outcomes["cut"], chunks), expected)
            if not sum(receipt.output(EXCLUDED).records for receipt in outcomes["drop"]):
                raise Differ("substrings: nothing was dropped")

        return contest({"cut": arm("cut", CUT), "drop": arm("drop", DROP)}, rounds, check)


def written(uri: str, tiny: bool, count: int) -> list[Chunk]:
    """The chunks of so many texts, put into a lake."""
    return put_chunks(open_store(uri), texts_of(tiny, count)[1])


def memory_of(tiny: bool, count: int) -> Memory:
    """Of two workers and the process that drives them, while all is found and cut."""
    with scratch() as folder:
        uri = str(folder / "lake")
        open_store(uri)
        chunks = alone(written, uri, tiny, count)
        with pool_runner(open_store(uri), WORKERS) as runner:
            judged(runner, chunks, CUT)
        return runner.memory


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated texts."""
    count, rounds = (200, 1) if tiny else (20_000, 3)
    # Memory first, as long as this process has no texts.
    few, more = (memory_of(tiny, times * count) for times in (1, TIMES))
    peaks = [max(memory.peaks.values()) for memory in (few, more)]
    source, texts = texts_of(tiny, count)
    times = timed(texts, rounds)
    words = sum(len(text.split()) for text in texts)
    changed = sum(left != text for left, text in zip(by_python(texts), texts, strict=True))
    same = f"every text as plain Python cuts it, {changed:,} of {count:,} changed"
    rows = [
        Row("texts cut of runs of 50 words, one process", _each(times, "cut", count), "/s", same),
        Row("words of them", _each(times, "cut", words), "/s", same),
        Row("texts dropped for such runs, one process", _each(times, "drop", count), "/s"),
        Row(f"summed peak of all processes, {TIMES} times the texts over one", _once(peaks[1] / peaks[0]), "x"),
    ]
    return Report(
        name="substrings",
        data=f"{count:,} {source}, {words:,} words; a tenth of them take a stretch of another",
        rounds=rounds,
        rows=tuple(rows),
        notes=(
            "no peer: suffix arrays over texts want a program in Rust that comes in no wheel",
            f"{WORKERS} workers and what drives them had {peaks[0] / 1e6:,.0f} MB at most, before work"
            f" {few.peaks[START] / 1e6:,.0f}; of {TIMES} times the texts {peaks[1] / 1e6:,.0f} MB",
        ),
        details={
            "words": words,
            "changed": changed,
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            "peaks": {"once": few.peaks, "more": more.peaks},
            "largest": {"once": few.largest, "more": more.largest},
            "seconds": {"once": few.seconds, "more": more.seconds},
        },
    )


def _each(times: Times, arm: str, count: int) -> Figure:
    return figure([count / seconds for seconds in times.cpu[arm]])


def _once(value: float) -> Figure:
    return Figure(value, value, value)
