"""`make demo`: all of this project at the size `nano`, from generated files to a report and a model that answers.

What runs is one command, `grist kickoff everything`: a graph of pipelines from raw files to datasets, mixtures, models
stage by stage, and evaluations. It is killed in the middle, and the same command goes on. Then what it came to is read
from the lake: the crawl beside the truth about it, windows, chains that a model drew and learned from, what models
answer of what they never met. At last a question of each kind is asked. Given again, it does nothing twice.
"""

from __future__ import annotations

import os
import sys
import time

from gristmill import place
from gristmill.orchestration.demo.asked import ask_all
from gristmill.orchestration.demo.brought import bring
from gristmill.orchestration.demo.shown import show_all
from gristmill.orchestration.demo.terminal import DATA, FOLDER, LAKE, REPORT, console, grist, say

MARKER = FOLDER / ".gristmill-demo"
WHOLE = FOLDER / ".data-is-whole"
"""There once all files of DATA are written."""
SIZES = ("--scenes", "5000", "--speech", "1000")
"""Of the data: rows that there are to train on in each file, roughly."""


def main() -> int:
    """Runs the demo in ./demo. Raises SystemExit where a promise does not hold."""
    started = time.monotonic()
    prepare()
    write_data()
    bring()
    show_all()
    say("Is every byte of every version what it was, and every record accounted for?")
    grist("verify", "--deep", "--lake", str(LAKE))
    say("All of it as a page, with figures, pictures, clips to listen to, and where everything comes from:")
    console.print(str(REPORT.resolve()), markup=False, soft_wrap=True)
    ask_all()
    console.print(f"\n[bold]Done in {time.monotonic() - started:.0f} s.[/] The lake is {LAKE}; look around with")
    console.print(f"  .venv/bin/grist sample web --fate dropped --lake {LAKE}")
    return 0


def prepare() -> None:
    """The folder, in the project's root: that of an earlier demo is gone on with, any other one is left alone."""
    os.chdir(place.ROOT)
    if FOLDER.exists() and not MARKER.exists():
        sys.exit(f"error: {FOLDER.resolve()} is there and was not made by the demo: move it away, then run again")
    FOLDER.mkdir(exist_ok=True)
    MARKER.touch()


def write_data() -> None:
    """Generated files, unless they are there."""
    if WHOLE.exists():
        return
    say("Generated files: a crawl with the truth about each page, instructions, word problems, pictures, speech.")
    grist("sample-data", str(DATA), *SIZES)
    WHOLE.touch()


if __name__ == "__main__":
    sys.exit(main())
