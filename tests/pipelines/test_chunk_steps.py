"""A flow in stretches: which steps a chunk goes through without waiting for others, and what still holds a run back."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest
from record_flows import SCAN, STEPS, Line, draft_of, flow_of, recipe_of, scanned

from gristmill.lake.store.base import Store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Draft
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.chunk_steps import Stretch
from gristmill.pipelines.frame.flow import Flow, State, Step
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.pipelines.frame.steps import RepeatedSubstrings
from gristmill.stages.dedup.substrings import Substrings
from gristmill.stages.read.inputs import scan_inputs
from gristmill.stages.read.listing import Listing
from gristmill.stages.run.progress import Progress
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import PlanOnly


class Unknown:
    """A step of a contributor, of which nothing is known but the contract."""

    stages = deciders = ()
    grows = MappingProxyType({})

    def run(self, run: BuildContext, state: State) -> State:
        return state


KNOWN: dict[str, Step] = {
    **STEPS,
    "drop runs": RepeatedSubstrings(Substrings(repeated="drop")),
    "cut runs": RepeatedSubstrings(Substrings(repeated="cut")),
    "unknown": Unknown(),
}


@pytest.mark.parametrize(
    ("steps", "own", "prepares"),
    [
        (["blocklist", "long", "unmark", "exact", "minhash"], 3, ["sign"]),
        (["long", "exact", "paragraphs", "drop runs", "minhash"], 1, ["hash paragraphs", "hash runs", "sign"]),
        (["long", "exact", "cut runs", "minhash"], 1, ["hash runs"]),
        (["exact", "unmark", "minhash"], 0, []),
        (["unmark", "minhash", "long"], 1, ["sign"]),
        (["minhash"], 0, ["sign"]),
        (["long", "unknown", "minhash"], 1, []),
        ([], 0, []),
    ],
)
def test_a_stretch_ends_where_records_are_compared_and_prepares_what_does_not_change_meanwhile(steps, own, prepares):
    stretch = Stretch.ahead([KNOWN[name] for name in steps])
    assert list(stretch.steps) == [KNOWN[name] for name in steps[:own]]
    assert [prepared.title for prepared in stretch.prepares] == prepares


LINES = [Line(host=2, page=n, body=n % 4, marked=n > 40) for n in range(80)]
"""Twenty chunks."""


def draft(store: Store, folder: Path, steps: list[str], plan: bool = False) -> tuple[Draft, Runner]:
    """Of a flow of these steps over LINES, and the runner that made it, whose history begins with the flow."""
    runner = Runner(store, workers=0, plan=plan, progress=Progress(terminal=False))
    inputs = scanned(Runner(store, workers=0, progress=Progress(terminal=True)), folder / "lines.jsonl", LINES, 1)
    return draft_of(recipe_of(flow_of([KNOWN[name] for name in steps])), runner, inputs, Suppression()), runner


def test_a_chunk_is_signed_while_others_are_still_to_be_read(store, tmp_path, caplog):
    caplog.set_level("INFO", "gristmill")
    draft(store, tmp_path, ["long", "unmark", "exact", "paragraphs", "minhash"])
    ends = {line.partition(":")[0]: n for n, line in enumerate(caplog.messages) if line.endswith(" s")}
    begins = {line.partition(":")[0]: n for n, line in enumerate(caplog.messages) if "begins" in line}
    stretch = ["extract", "screen", "edit", "hash paragraphs", "sign"]
    assert [title for title in begins if title in stretch] == stretch and begins["screen"] < ends["extract"]
    assert begins["sign"] < ends["screen"] < begins["exact"], "only a comparison waits"
    assert list(begins).count("sign") == 1, "what was prepared is not done or looked up again"


def test_steps_behind_a_comparison_are_a_stretch_of_their_own(store, tmp_path, caplog):
    caplog.set_level("INFO", "gristmill")
    steps = ["exact", "blocklist", "unmark", "minhash"]
    first, _ = draft(store, tmp_path, steps)
    begins = [line.partition(":")[0] for line in caplog.messages if "begins" in line]
    assert begins[:5] == ["extract", "exact", "screen hosts", "edit", "sign"]
    again, runner = draft(store, tmp_path, steps)
    assert again == first and not any(ran for _, _, ran in runner.history)


@pytest.mark.parametrize(
    ("line", "if_none", "message"),
    [
        ("{", None, "80 of 80 records are quarantined"),
        (
            '{"url": "https://one.example/", "text": ""}',
            "none of {records}: {reasons}",
            r"none of 80: extract\.no_text",
        ),
    ],
)
def test_what_holds_a_run_back_once_all_is_read_ends_the_stretch_there(store, tmp_path, line, if_none, message):
    (tmp_path / "lines.jsonl").write_text(f"{line}\n" * 80)
    runner = Runner(store, workers=0)
    inputs = scan_inputs(runner, SCAN, Listing([str(tmp_path / "lines.jsonl")], []))
    given = flow_of([KNOWN[name] for name in ("long", "exact", "minhash")])
    recipe = recipe_of(Flow(given.read, given.steps, given.write, if_none))
    with pytest.raises(GateFailed, match=message):
        draft_of(recipe, runner, inputs, Suppression())
    history = {title: ran for title, _, ran in runner.history}
    assert history["extract"] == 20 and history["screen"] < 20 and list(history)[-2:] == ["screen", "sign"]


def test_a_plan_names_the_first_stage_of_a_stretch_with_something_to_do(store, tmp_path):
    draft(store, tmp_path, ["long", "exact"])
    with pytest.raises(PlanOnly) as caught:
        draft(store, tmp_path, ["long", "unmark", "exact", "minhash"], plan=True)
    assert (caught.value.title, caught.value.done, len(caught.value.todo)) == ("edit", 0, 20)
