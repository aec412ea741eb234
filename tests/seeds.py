"""What is learned, once a seed: a seed's result is kept as it comes, so that what was broken off goes on at the seed
that it had reached; then what a seed lacks, the tables, and the file of benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]
MACHINE = "two virtual cores with other work on them, one thread: CPU seconds are upper bounds"


@dataclass(frozen=True)
class Study:
    """`name`, as in benchmarks/results, and `recipe`, what was done, in words. `learned`: of a folder and a seed, what
    was measured; `kept`: the file of the folder that holds it. `lacking`: where a seed is below what is asked of it, a
    line each; `show`: prints the tables of the results, by seed, and these lines."""

    name: str
    recipe: str
    kept: str
    learned: Callable[[Path, int], Result]
    lacking: Callable[[str, Result], list[str]]
    show: Callable[[Mapping[str, Result], list[str]], None]


def main(arguments: list[str], study: Study, about: str | None) -> int:
    """Learns with each seed, on one thread. -> The exit code: 1 where a seed is below what is asked of it."""
    parser = argparse.ArgumentParser(prog=study.name, description=about)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="where all is kept: what is there is not learned again")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="grist-learn-") as name:
        for seed in given.seeds:
            folder = Path(given.folder or name, f"seed-{seed}")
            kept = folder / study.kept
            if not kept.exists():
                folder.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(study.learned(folder, seed)))
            results[str(seed)] = json.loads(kept.read_text())
    if given.out is not None:
        written = {"name": study.name, "recipe": study.recipe, "machine": MACHINE, "seeds": results}
        given.out.write_text(json.dumps(written, indent=1) + "\n")
    failed = [line for seed, result in results.items() for line in study.lacking(seed, result)]
    study.show(results, failed)
    return int(bool(failed))
