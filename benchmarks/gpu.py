"""`python -m benchmarks gpu`, or `python benchmarks/gpu.py`: all that is measured on a GPU, in 8 minutes, offline.

For a machine that is lent bare: it needs torch, numpy and safetensors; transformers, peft and liger-kernel are peers,
left out by name where they are not installed. Sections in order of worth, each in a process of its own: one that
fails, or runs past its guard and is stopped, is a row that says so, and the next one begins on a clean card. What a
section came to is written as soon as it ends: OUT/{checks,generate,train}_gpu-CARD.json; the table comes last. Exit
code 1: a section failed, was stopped or had no time left. `--tiny` runs small models on the CPU, to see that all of it
runs: it says nothing about speed, and is written only where `--out` says so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # run as a file: its folder is no place to import from, the checkout is
    sys.path[:] = [str(ROOT), *(place for place in sys.path if Path(place or ".").resolve() != ROOT / "benchmarks")]

from benchmarks.harness import Figure, Report, Row, versions  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
SECONDS, TINY_SECONDS = 450.0, 3600.0
"""Of all sections together, so that everything is over after 8 minutes; of a tiny run, whose machine may be busy and
whose sections have no guards of their own."""
MARGIN = 0.85
"""Of a section's guard, after which it begins nothing more."""
LEAST = 15.0
"""Seconds without which no section begins: a process, its imports and a model take as long."""
LEAVE = 10.0
"""Seconds in which a process that is done may end by itself."""
PACKAGES = ("gristmill", "torch", "triton", "transformers", "peft", "liger-kernel")
CHECKED = "small models with random weights"
MADE_UP = "random weights of the shape of Phi-4-Mini (3.8 B parameters), prompts of 128 tokens, 128 written"
TRAINED = "random weights of the shape of Phi-4-Mini (3.8 B parameters), an adapter of rank 320, 2 rows of 4,096 tokens"


class Section(NamedTuple):
    """A part of the script. `function`: "module:name" of what gives its rows, called with (tiny, Deadline); `seconds`:
    its guard; `report`: the file that its rows go to; `data`: what they are of; `tiny`: part of a tiny run too."""

    name: str
    function: str
    seconds: float
    report: str
    data: str
    tiny: bool = True


SECTIONS = (
    Section("checks", "benchmarks.gpu_checks:rows", 90, "checks_gpu", CHECKED),
    Section("generate-64", "benchmarks.bench_generate_gpu:slots_64", 70, "generate_gpu", MADE_UP),
    Section("generate-256", "benchmarks.bench_generate_gpu:slots_256", 70, "generate_gpu", MADE_UP, tiny=False),
    Section("generate-1024", "benchmarks.bench_generate_gpu:slots_1024", 80, "generate_gpu", MADE_UP, tiny=False),
    Section("linears", "benchmarks.layer_linears:rows", 30, "train_gpu", TRAINED),
    Section("train", "benchmarks.bench_train_gpu:sft", 240, "train_gpu", TRAINED),
    Section("tests", "benchmarks.gpu_tests:rows", 60, "checks_gpu", CHECKED, tiny=False),
)


@dataclass
class Results:
    """Rows by section as they come, and the card that they are of, which the first section tells. `folder`: where they
    are written; None: nowhere."""

    folder: Path | None
    tiny: bool
    card: tuple[str, str] = ("unknown", "an unknown card")
    rows: dict[Section, list[Row]] = field(default_factory=dict)

    def write(self, report: str) -> None:
        """Writes a report again, with the rows that it has now."""
        if self.folder is None:
            return
        sections = [section for section in self.rows if section.report == report]
        short, name = self.card
        content = Report(
            name=f"{report}-{short}",
            data=f"{'a tiny run' if self.tiny else sections[0].data}, on {name}",
            rounds=3,
            rows=tuple(row for section in sections for row in self.rows[section]),
            notes=("rounds: at most, fewer where a section had no time for them",),
            details={"packages": versions(PACKAGES)},
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / f"{report}-{short}.json"
        place.write_text(json.dumps(content.to_json(), indent=1) + "\n")

    @property
    def failed(self) -> bool:
        """Whether any row says that what is measured is at fault."""
        return any(row.failed for rows in self.rows.values() for row in rows)


def run_section(
    section: Section, tiny: bool, seconds: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Row | tuple[str, str]]:
    """The rows of a section from a process of its own, and before them the card (its short name, its whole one). The
    last row says so where it was stopped after `seconds`, or its process ended without a word. Nothing of it runs any
    more afterwards."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # The clock of the machine, which both processes read: imports are part of a section's time.
    until = time.monotonic() + MARGIN * seconds
    process = context.Process(target=child, args=(sender, section.function, tiny, until), name=section.name)
    process.start()
    sender.close()
    end = clock() + seconds
    try:
        while True:
            left = end - clock()
            if left <= 0 or not receiver.poll(left):
                yield _fault(section, f"stopped after its {seconds:.0f} seconds")
                return
            try:
                item = receiver.recv()
            except EOFError:
                process.join()
                yield _fault(section, f"its process ended with exit code {process.exitcode}")
                return
            if item is None:
                process.join(LEAVE)
                return
            yield item
    finally:
        _end(process)
        receiver.close()


def _fault(section: Section, why: str) -> Row:
    return Row(f"section {section.name}", None, "", why=why, failed=True)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """Ends a section's process if it still runs, and what it started: compilers have processes of their own."""
    if process.is_alive():
        assert process.pid is not None
        with suppress(ProcessLookupError):  # it may not have made its group yet
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.join()


def child(sender: Connection, function: str, tiny: bool, until: float) -> None:
    """In the section's process: sends the card, each row as it comes, and None at the end. An error is the last row.
    `until`: when it is to begin nothing more, by `time.monotonic`."""
    os.setpgrp()
    warnings.simplefilter("ignore")  # peers warn of what will be renamed
    from benchmarks.section import Card, Deadline, attempted

    def rows() -> Iterator[Row]:
        card = Card.here(tiny)
        sender.send((card.short, card.name))
        module, _, name = function.partition(":")
        yield from getattr(importlib.import_module(module), name)(tiny, Deadline(until - time.monotonic()))

    for row in attempted(f"section {function}", rows):
        sender.send(row)
    sender.send(None)


def run_all(
    sections: Sequence[Section], results: Results, seconds: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Runs sections one after the other, writes each when it ends, and prints its rows as they come, of which one takes
    the place of an earlier one of its name: a section that may yet be stopped tells early what it has. `seconds`: of
    all together; a section that would begin in the last of them is left out, and says so."""
    end = clock() + seconds
    for section in sections:
        rows = results.rows[section] = []
        began, left = clock(), end - clock()
        share = left if results.tiny else min(section.seconds, left)
        print(f"{section.name}: at most {max(share, 0):.0f} s", flush=True)
        if share < LEAST:
            rows.append(_fault(section, f"no time left: {max(share, 0):.0f} of {seconds:.0f} seconds"))
        else:
            for item in run_section(section, results.tiny, share):
                if isinstance(item, Row):
                    rows[:] = [*(row for row in rows if row.what != item.what), item]
                    print(f"  {line(item)}", flush=True)
                else:
                    results.card = item
        print(f"  {section.name} took {clock() - began:.0f} s", flush=True)
        results.write(section.report)


def line(row: Row, width: int = 0) -> str:
    """A row as text: what, median, spread, and how equal work was seen or why there is no figure."""
    if row.figure is None:
        return f"{row.what:<{width}}  {'FAILED' if row.failed else 'left out'}: {row.why}"
    return f"{row.what:<{width}}  {shown(row.figure):>26} {row.unit:<9}  {row.same}".rstrip()


def shown(values: Figure) -> str:
    """Median and spread as text."""
    median, low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    return f"{median} ({low} - {high})"


def main(arguments: Sequence[str]) -> int:
    """Runs the sections. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description="Measures on the GPU of this machine."
    )
    names = [section.name for section in SECTIONS]
    parser.add_argument("--tiny", action="store_true", help="small models on the CPU; says nothing about speed")
    parser.add_argument("--out", type=Path, help="folder for the JSON files; default: benchmarks/results")
    parser.add_argument("--only", nargs="+", choices=names, metavar="SECTION", help=f"of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, help=f"of all together; default: {SECONDS:.0f}")
    given = parser.parse_args(arguments)
    chosen = [section for section in SECTIONS if not given.only or section.name in given.only]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the section under way ends too
    seconds = given.seconds or (TINY_SECONDS if given.tiny else SECONDS)
    results = Results(given.out or (None if given.tiny else RESULTS), given.tiny)
    run_all([section for section in chosen if section.tiny or not given.tiny], results, seconds)
    rows = [row for of_section in results.rows.values() for row in of_section]
    width = max((len(row.what) for row in rows), default=0)
    print(f"\non {results.card[1]}", *(line(row, width) for row in rows), sep="\n")
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
