"""Versions of chains in a lake: what is killed goes on, what is new is added, what is taken down is taken out."""

from __future__ import annotations

import shutil

import pytest
import reasonings
from reasonings import family_of, rows_of, three

from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.reason.reasoning import RolloutRecipe
from gristmill.pipelines.reason.settings import ReasoningRun
from gristmill.stages.core import work as core
from gristmill.stages.generate.draw import Generate
from gristmill.stages.generate.engines.compact import CompactEngine
from gristmill.stages.generate.judge import Verify
from gristmill.stages.run.runner import Runner

COUNT = 12


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasoning")
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    shutil.copytree(folder / "lake", folder / "bare")
    store.bare = folder / "bare"
    rows = [reasonings.problem(i) for i in range(COUNT)]
    store.problems = reasonings.lines(folder / "in" / "problems.jsonl", rows)
    return store


@pytest.fixture(autouse=True)
def parity(monkeypatch):
    reasonings.by_parity(monkeypatch)


@pytest.fixture
def bare(lake, tmp_path):
    """A lake of one's own, with the model and without rollouts."""
    shutil.copytree(lake.bare, tmp_path / "lake")
    return open_store(str(tmp_path / "lake"))


@pytest.fixture(scope="module")
def whole(lake):
    with pytest.MonkeyPatch.context() as patch:
        reasonings.by_parity(patch)
        reasonings.reason(lake, [lake.problems], dataset="whole")
    return three(lake, "whole")


def test_variants_are_a_version_that_says_which_rows_they_come_from(lake, bare, tmp_path):
    rows = [reasonings.problem(i) for i in (0, 6, 9)]  # of no mill there is no variant
    file = reasonings.lines(tmp_path / "worked.jsonl", rows)
    reasonings.reason(bare, [file], dataset="evolved", problems={"variant": 1, "seconds_per_record": None}, pairs=False)
    version = reasonings.latest(bare, "evolved.rollouts")
    assert [name for given in version.inputs for name in given.names] == [str(file)]
    assert {reason: n for row in version.funnel for reason, n in row.dropped.items()} == {"problems.nothing_free": 1}
    problems = rows_of(bare, version)
    assert len(problems) == 2
    assert not {row["text"] for row in problems} & {row["question"] for row in rows}
    assert all(row["source"].startswith("evolved:") for row in problems)


class Killed(BaseException):
    """The process went away."""


@pytest.mark.parametrize("after", [2, 5])
def test_what_a_kill_interrupts_comes_to_the_same_versions(lake, whole, bare, monkeypatch, after):
    """Killed after so many pieces, and again after as many more, until it is done."""
    execute_warm, left = core._proved, [after]

    def proved(*args):
        receipt = execute_warm(*args)
        if receipt.stages[-1].name in ("generate", "verify", "settle", "choose_samples", "chains"):
            left[0] -= 1
            if not left[0]:
                left[0] = after
                raise Killed
        return receipt

    monkeypatch.setattr(core, "_proved", proved)
    kills = 0
    while True:
        try:
            reasonings.reason(bare, [lake.problems], dataset="whole")
            break
        except Killed:
            kills += 1
    assert kills > 1
    assert [m.content_digest for m in three(bare, "whole")] == [m.content_digest for m in whole]


def test_a_kill_between_drawing_and_judging_draws_nothing_again(lake, whole, bare, monkeypatch):
    """Samples are stored before they are judged: the second run judges those that the first one drew."""
    asked: list[tuple[str, int]] = []
    generate, proved = CompactEngine.generate, core._proved

    def noted(self, asks):
        asks = list(asks)
        asked.extend((ask.problem, sample) for ask in asks for sample in ask.samples)
        yield from generate(self, asks)

    def killed(*args):
        receipt = proved(*args)
        if receipt.stages[-1].name == "generate":
            raise Killed
        return receipt

    monkeypatch.setattr(CompactEngine, "generate", noted)
    monkeypatch.setattr(core, "_proved", killed)
    with pytest.raises(Killed):
        reasonings.reason(bare, [lake.problems], dataset="whole")
    drawn = set(asked)
    assert len(drawn) == 2 * reasonings.RECIPE["scan"]["chunk_records"]
    monkeypatch.setattr(core, "_proved", proved)
    reasonings.reason(bare, [lake.problems], dataset="whole")
    assert len(asked) == len(set(asked)) > len(drawn), "no sample was drawn twice"
    assert [m.content_digest for m in three(bare, "whole")] == [m.content_digest for m in whole]


def test_a_kill_in_the_middle_of_a_wave_costs_that_piece_alone(lake, whole, bare, monkeypatch):
    """Killed while the second wave of a chunk is drawn, some of whose samples are there already."""
    asked: list[tuple[str, int]] = []
    generate = CompactEngine.generate

    def dying(self, asks):
        asks = list(asks)
        asked.extend((ask.problem, sample) for ask in asks for sample in ask.samples)
        second = all(min(ask.samples) == 2 for ask in asks)
        for number, sample in enumerate(generate(self, asks)):
            if second and number == 3:
                raise Killed
            yield sample

    with monkeypatch.context() as patch:
        patch.setattr(CompactEngine, "generate", dying)
        with pytest.raises(Killed):
            reasonings.reason(bare, [lake.problems], dataset="whole")
    assert {sample for _, sample in asked} == {0, 1, 2, 3}, "the first wave was whole, and judged"
    reasonings.reason(bare, [lake.problems], dataset="whole")
    assert [m.content_digest for m in three(bare, "whole")] == [m.content_digest for m in whole]


class RolloutConfig(PipelineConfig):
    """The first version of the chain alone."""

    pipeline: str = "rollouts"
    recipe: RolloutRecipe
    run: ReasoningRun


def test_on_ray_pieces_share_an_engine_and_come_to_the_same_version(lake, bare, monkeypatch):
    """Judged by the real verifier here too, which finds nothing right in what a random model writes."""
    monkeypatch.undo()
    config = reasonings.config([lake.problems], dataset="ray", draws={"max_tokens": 6, "seed": 9})
    rollouts = []
    for store, workers in ((lake, 0), (bare, 2)):
        run = config.run.model_copy(update={"workers": workers})
        alone = RolloutConfig(recipe=config.recipe.link([]), run=run)
        rollouts.append(run_pipeline(alone, store, Runner(store, workers=workers)).manifest)
    here, there = rollouts
    assert here.content_digest == there.content_digest and here.samples.count == 6 * COUNT
    assert here.verdicts["rejected"] == here.samples


def test_a_dataset_grows_by_new_problems_and_all_samples_are_selected_from(lake, tmp_path):
    rows = [reasonings.problem(i) for i in range(10)]
    first = reasonings.lines(tmp_path / "first.jsonl", rows)
    reasonings.reason(lake, [first], dataset="grown", extends="grown")
    before = three(lake, "grown")
    second = reasonings.lines(tmp_path / "second.jsonl", [rows[0], *(reasonings.problem(i) for i in range(10, 16))])
    reasonings.reason(lake, [first, second], dataset="grown", extends="grown")
    rollouts, _, chains = three(lake, "grown")
    assert (rollouts.version, rollouts.kept.count, rollouts.parent.version) == (2, 16, 1)
    family = family_of(lake, rollouts)
    assert rollouts.samples.count == len(family) > before[0].samples.count
    assert sum(tally.count for tally in rollouts.verdicts.values()) == len(family)
    assert chains.received.count == len(family) and chains.kept.count > before[2].kept.count
    assert [finding for finding in verify(lake, deep=True) if "grown" in str(finding)] == []
    assert len(why(Versions(lake), family[0]["parent_id"], "grown.rollouts").children) >= 2


def test_what_is_all_known_already_starts_no_engine(lake, tmp_path, monkeypatch):
    """Neither by the same file, nor by a copy of its problems in another one."""
    rows = [reasonings.problem(i) for i in range(10)]
    first = reasonings.lines(tmp_path / "first.jsonl", rows)
    reasonings.reason(lake, [first], dataset="known", extends="known")
    before = three(lake, "known")
    copies = reasonings.lines(tmp_path / "copies.jsonl", [row | {"note": "copied"} for row in rows])

    def started(*args):
        raise AssertionError("an engine was started")

    monkeypatch.setattr(Generate, "setup", started)
    monkeypatch.setattr(Verify, "setup", started)
    reasonings.reason(lake, [first], dataset="known", extends="known")
    reasonings.reason(lake, [first, copies], dataset="known", extends="known")
    after = three(lake, "known")
    assert [version.kept.count for version in after] == [version.kept.count for version in before]
    assert after[0].parent is not None and after[0].samples == before[0].samples
    assert [finding for finding in verify(lake, deep=True) if "known" in str(finding)] == []


def test_a_takedown_of_a_problem_takes_what_was_versions_made_it(bare, tmp_path):
    store = bare
    file = reasonings.lines(tmp_path / "in.jsonl", [reasonings.problem(i) for i in range(12)])
    reasonings.reason(store, [file])
    rollouts, pairs, chains = three(store, "reasoning")
    problem = rows_of(store, pairs)[0]["id"]
    gone = [row["id"] for row in rows_of(store, chains) if row["parent_id"] == problem]
    assert gone
    versions = Versions(store)
    report = forget(versions, plan_forget(versions, Suppression.of(ids=[problem])), "asked by mail")
    assert {"reasoning.rollouts@v1", "reasoning.pairs@v1", "reasoning@v1"} <= set(report.withdrawn)
    assert dict(report.made) == {"reasoning.pairs@v1": "reasoning.pairs@v2", "reasoning@v1": "reasoning@v2"}
    left = [reasonings.latest(store, name) for name in ("reasoning.pairs", "reasoning")]
    assert problem not in {row["id"] for row in rows_of(store, left[0])}
    assert {row["parent_id"] for row in rows_of(store, left[1])}.isdisjoint({problem})
    assert left[1].kept.count == chains.kept.count - len(gone)
    reasonings.reason(store, [file])  # again: the problem is left out, and the others are drawn as before
    again = three(store, "reasoning")
    assert again[0].version == 2 and problem not in {row["id"] for row in rows_of(store, again[0])}
    before = {row["id"]: row["samples"] for row in rows_of(store, rollouts) if row["id"] != problem}
    assert {row["id"]: row["samples"] for row in rows_of(store, again[0])} == before
