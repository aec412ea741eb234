"""The demo's kickoff: one command for the whole graph, killed in the middle, given again until all of it is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from glob import glob
from pathlib import Path

from gristmill.orchestration.demo.terminal import DATA, FOLDER, LAKE, LOGS, REPORT, check, console, grist, killed, say
from gristmill.pipelines.kickoff.plan import Plan
from gristmill.pipelines.kickoff.prepare import Asked, prepare

CONFIG = "everything"
SETTINGS = (f"paths.data={DATA}", f"report.file={REPORT}")
KICKOFF = (
    "kickoff", CONFIG, *(part for setting in SETTINGS for part in ("--set", setting)), "--logs", str(LOGS),
    "--lake", str(LAKE),
)  # fmt: skip
KILLED = FOLDER / ".was-killed"
"""There once the demo has killed its kickoff: it does so once."""
TRAININGS = 2
"""Trainings that have to have left a checkpoint before the kickoff is killed."""
_WENT_ON = re.compile(r"step [\d,]+ of ([\d,]+), .*, went on behind step ([\d,]+)$", re.MULTILINE)


def bring() -> None:
    """Brings all nodes to their versions. Raises SystemExit where something is done twice, or a node fails."""
    before = planned()
    if not done(before):
        say("From files to datasets, mixtures, models and evaluations: one graph, one command. It is killed soon.")
    if to_run(before) and not KILLED.exists():
        killed(*KICKOFF, when=trainings_under_way(LAKE), note="while two models are trained")
        KILLED.touch()
        before = planned()
        say(f"{len(done(before))} of {len(before.nodes)} nodes were done by then. The same command does the others.")
    printed = grist(*KICKOFF)
    after = done(planned())
    check_done_once(done(before), after, printed)
    for node, (steps, step) in resumed(LOGS).items() if to_run(before) else ():
        console.print(f"{node} went on behind step {step} of {steps}, where its last checkpoint was")
    check(len(after) == len(before.nodes), f"all {len(after)} nodes are done: the same command would do nothing")


def planned() -> Plan:
    """What `grist kickoff --plan` says, as data."""
    return prepare(Asked(Path(CONFIG), SETTINGS, str(LAKE)), for_plan=True).plan()


def done(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Node -> its versions with their digests, of those that are done."""
    return {each.node: tuple(f"{m} {m.digest}" for m in each.versions) for each in plan.nodes if each.done}


def to_run(plan: Plan) -> int:
    """How many nodes are not done."""
    return sum(each.to_run for each in plan.nodes)


def trainings_under_way(lake: Path) -> Callable[[], bool]:
    """-> Whether TRAININGS different ones have left a checkpoint in the lake since then."""
    earlier, seen = checkpoints(lake), set[str]()

    def under_way() -> bool:
        seen.update(Path(state).parts[-4] for state in checkpoints(lake) - earlier)
        return len(seen) >= TRAININGS

    return under_way


def checkpoints(lake: Path) -> set[str]:
    """Those of trainings that run, or were killed. Not by Path.glob, which does not like a folder that goes away."""
    return set(glob(str(lake / "runs" / "*" / "checkpoints" / "step-*" / "state.json")))


def check_done_once(before: Mapping[str, object], after: Mapping[str, object], printed: str) -> None:
    """Ends the demo where a node that was done before was done again. `printed`: by the kickoff, of every node."""
    if not before:
        return
    again = [node for node in before if not re.search(rf"^\s*{node}\s+done before\b", printed, re.MULTILINE)]
    others = [node for node, versions in before.items() if after.get(node) != versions]
    check(not again and not others, f"what was done before is not done again: {len(before)} nodes")


def resumed(logs: Path) -> dict[str, tuple[str, str]]:
    """Node -> (its steps, behind which of them it went on), of trainings that did so at a checkpoint, by what they
    said."""
    lines = {path.stem: _WENT_ON.findall(path.read_text(encoding="utf-8")) for path in sorted(logs.glob("*.log"))}
    return {node: steps[-1] for node, steps in lines.items() if steps}
