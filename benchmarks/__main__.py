"""`python -m benchmarks [NAME ...]`: reruns the README's figures, prints them, writes benchmarks/results/NAME.json.

All of them take some minutes on two cores. `--tiny` runs on little, generated data to see that they still run, and
writes nothing unless `--results` says where. Exit code 1: contestants differed, and there are no figures to show.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Differ, Figure, Report, measured, measured_alone

NAMES = (
    "gopher",
    "decontaminate",
    "pii",
    "classify",
    "language",
    "containers",
    "extraction",
    "ledger",
    "pipeline",
    "scale",
    "minhash",
    "dedup",
    "dedup_memory",
    "substrings",
    "tokenize",
    "reader",
    "generate",
    "packing",
    "image",
    "copies",
    "vision",
    "pack_images",
    "pack_clips",
    "audio",
    "long_audio",
    "log_mel",
    "sounds",
    "speech",
    "train_ray",
    "plan",
    "inspect",
    "optimizers",
    "verify",
    "adaptive",
    "in_flight",
    "busy",
)
GPU_NAMES = ("generate_gpu",)
"""Run by name only, where there is a GPU."""
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str]) -> int:
    """Runs benchmarks, prints their figures and stores them. Returns the exit code: 1 if work was not the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Rerun the README's figures.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all; or {', '.join(GPU_NAMES)}"
    )
    parser.add_argument("--tiny", action="store_true", help="little generated data; says nothing about speed")
    parser.add_argument("--results", type=Path, help="folder for the JSON files; default: benchmarks/results")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - {*NAMES, *GPU_NAMES}):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join((*NAMES, *GPU_NAMES))}")
    folder = given.results or (None if given.tiny else RESULTS)
    console, reports = Console(), []
    if not console.is_terminal:
        console.width = 120  # a log has no width of its own
    for name in given.names or NAMES:
        console.print(f"[dim]{name} ...[/dim]")
        try:
            report = measured(name, True) if given.tiny else measured_alone(name)
        except Differ as error:
            console.print(f"not the same work: {error}", markup=False)
            return 1
        reports.append(report)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.json").write_text(json.dumps(report.to_json(), indent=1) + "\n")
    console.print(table(reports))
    for report in reports:
        for note in (f"{report.rounds} rounds; on {report.data}", *report.notes):
            console.print(f"{report.name}: {note}", markup=False)
    return 0


def table(reports: Sequence[Report]) -> Table:
    """The figures of all reports as a table."""
    drawn = Table("what", "figure", "spread", "same work checked")
    drawn.columns[1].justify = drawn.columns[2].justify = "right"
    for report in reports:
        for row in report.rows:
            drawn.add_row(row.what, *shown(row.figure, row.unit), row.same)
        drawn.add_section()
    return drawn


def shown(figure: Figure, unit: str) -> tuple[str, str]:
    """(median, spread) as text."""
    median, low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in figure)
    return f"{median} {unit}", f"{low} - {high}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
