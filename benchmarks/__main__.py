"""`python -m benchmarks [NAME ...]`: reruns the README's figures, prints them, writes benchmarks/results/NAME.json.

All of them take some minutes on two cores. `--tiny` runs on little, generated data to see that they still run, and
writes nothing unless `--results` says where. Exit code 1: contestants differed, and there are no figures to show.
`python -m benchmarks gpu` is a script of its own, for a machine with a GPU (benchmarks/gpu.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Differ, Figure, Report, measured, measured_alone

if TYPE_CHECKING:  # a machine lent for its GPU may lack it, and `gpu` does without
    from rich.table import Table

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
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str]) -> int:
    """Runs benchmarks, prints their figures and stores them. Returns the exit code: 1 if work was not the same."""
    if arguments and arguments[0] == "gpu":
        from benchmarks import gpu

        return gpu.main(arguments[1:])
    from rich.console import Console

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Rerun the README's figures.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all; or, alone, gpu with its --help"
    )
    parser.add_argument("--tiny", action="store_true", help="little generated data; says nothing about speed")
    parser.add_argument("--results", type=Path, help="folder for the JSON files; default: benchmarks/results")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}, and, alone, gpu")
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
    from rich.table import Table

    drawn = Table("what", "figure", "spread", "same work checked")
    drawn.columns[1].justify = drawn.columns[2].justify = "right"
    for report in reports:
        for row in report.rows:
            drawn.add_row(row.what, *shown(row.figure, row.unit), row.same)
        drawn.add_section()
    return drawn


def shown(figure: Figure | None, unit: str) -> tuple[str, str]:
    """(median, spread) as text; without a figure, nothing."""
    if figure is None:
        return "-", "-"
    median, low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in figure)
    return f"{median} {unit}", f"{low} - {high}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
