"""The reasoning pipeline: waves, verdicts, selection; the same versions whatever was killed in between."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import reasonings
from reasonings import family_of, rows_of, three

from gristmill.lake.accounts.fan import child_id, sample_tallies
from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import PlanOnly
from gristmill.stages.text.instruct import parts_of

COUNT = 20


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasoning")
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    rows = [reasonings.problem(i) for i in range(COUNT)]
    store.problems = reasonings.lines(folder / "in" / "problems.jsonl", [*rows, rows[3], {"question": "No answer?"}])
    return store


@pytest.fixture(autouse=True)
def parity(monkeypatch):
    reasonings.by_parity(monkeypatch)


@pytest.fixture(scope="module")
def whole(lake):
    with pytest.MonkeyPatch.context() as patch:
        reasonings.by_parity(patch)
        patch.setattr("gristmill.stages.read.scan.SETTLED", -1e9)  # a file as new as this one is remembered too
        result = reasonings.reason(lake, [lake.problems], dataset="whole")
    rollouts, pairs, chains = three(lake, "whole")
    assert result.new and result.manifest.digest == chains.digest
    return rollouts, pairs, chains


def test_every_problem_has_a_fate_and_every_sample_a_verdict(lake, whole):
    rollouts = whole[0]
    assert (rollouts.received.count, rollouts.kept.count, rollouts.dropped.count) == (COUNT + 2, COUNT, 2)
    dropped = Counter(reason for row in rollouts.funnel for reason in row.dropped)
    assert set(dropped) == {"problems.no_field", "exact.duplicate"}
    rows, family = rows_of(lake, rollouts), family_of(lake, rollouts)
    assert rollouts.samples.count == len(family) == sum(len(row["samples"]) for row in rows)
    assert {name: tally.count for name, tally in rollouts.verdicts.items() if tally.count} == Counter(
        row["verdict"] for row in family
    )
    assert {row["id"] for row in family} == {child_id(row["parent_id"], row["sample"]) for row in family}
    assert {row["verifier"] for row in family} == {"parity@1"} and {row["engine"] for row in family} == {"base@v1"}
    assert all(1 <= row["tokens"] <= 6 and row["attempt"] == 1 for row in family if row["verdict"] != "undecided")


def test_a_problem_has_as_many_samples_as_its_stop_says(lake, whole):
    chains = 0
    for row in rows_of(lake, whole[0]):
        verdicts = [sample["verdict"] for sample in row["samples"]]
        accepted = verdicts.count("accepted")
        distinct = len({" ".join(s["text"].split()) for s in row["samples"] if s["verdict"] == "accepted"})
        assert [sample["sample"] for sample in row["samples"]] == list(range(len(verdicts)))
        assert (distinct == 2 and verdicts[-1] == "accepted") or (distinct < 2 and len(verdicts) == 6)
        chains += distinct
        assert (row["accepted"], row["rejected"]) == (accepted, verdicts.count("rejected"))
    statistics = whole[0].statistics["rollouts"]
    assert statistics["surplus"] == statistics["surplus_tokens"] == 0, "no wave has more than may end it"
    assert statistics["cost"] is None and 0 < statistics["busy"] <= 1 and statistics["distinct"] == chains > COUNT
    assert sum(statistics["difficulties"].values()) == sum(statistics["ends"].values()) == COUNT
    assert set(statistics["ends"]) == {"enough", "at_most"}


def test_fine_tuning_samples_are_distinct_right_chains_with_their_lineage(lake, whole):
    rollouts, _, chains = whole
    samples = {s["id"]: (row, s) for row in rows_of(lake, rollouts) for s in row["samples"]}
    rows = rows_of(lake, chains)
    assert chains.received.count == rollouts.samples.count == len(samples) and chains.kept.count == len(rows) > 5
    texts = defaultdict(list)
    for row in rows:
        problem, sample = samples[row["id"]]
        assert sample["verdict"] == "accepted" and row["parent_id"] == problem["id"] and row["url"] == problem["url"]
        parts = parts_of(row["text"], row["parts"])
        assert [part.text for part in parts if not part.special] == [problem["text"], sample["text"]]
        assert "".join(part.text for part in parts if part.loss_mask and not part.special) == sample["text"]
        texts[row["parent_id"]].append(" ".join(sample["text"].split()))
    assert all(len(set(of_problem)) == len(of_problem) <= 4 for of_problem in texts.values())
    assert [(str(ref), ref.role) for ref in chains.sources] == [("whole.rollouts@v1", "rolled_out")]
    assert {reason for row in chains.funnel for reason in row.dropped} <= {
        "select.rejected",
        "select.undecided",
        "select.duplicate_chain",
    }


def test_pairs_are_a_right_and_a_wrong_chain_of_a_problem(lake, whole):
    rollouts, pairs, _ = whole
    problems = {row["id"]: row for row in rows_of(lake, rollouts)}
    rows = rows_of(lake, pairs)
    assert pairs.received.count == COUNT and pairs.kept.count == len(rows) > 2
    for row in rows:
        verdicts = {sample["id"]: sample["verdict"] for sample in problems[row["id"]]["samples"]}
        assert (verdicts[row["chosen_id"]], verdicts[row["rejected_id"]]) == ("accepted", "rejected")
        texts = {sample["id"]: sample["text"] for sample in problems[row["id"]]["samples"]}
        chosen, rejected = row["text"][: row["rejected_at"]], row["text"][row["rejected_at"] :]
        assert texts[row["chosen_id"]] in chosen and texts[row["rejected_id"]] in rejected
        assert 0 <= row["step"] <= row["steps"]


def test_what_selection_did_to_groups_is_told(whole):
    selection = whole[2].statistics["selection"]
    groups = {(row["dimension"], row["group"]): row for row in selection["groups"]}
    assert {dimension for dimension, _ in groups} == {"domain", "difficulty", "length", "language", "pronouns", "names"}
    assert groups["pronouns", "she"]["problems"] == groups["pronouns", "he"]["problems"] == COUNT // 2
    assert groups["names", "mostly women's"]["problems"] == groups["names", "mostly men's"]["problems"] == COUNT // 2
    assert sum(row["selected"] for (d, _), row in groups.items() if d == "pronouns") == whole[2].kept.count
    low, high = groups["pronouns", "she"]["kept"][1:]
    assert 0 <= low < high <= 1


def test_what_was_committed_is_whole_and_a_second_run_is_the_same(lake, whole):
    assert [finding for finding in verify(lake, deep=True) if "whole" in str(finding)] == []
    again = reasonings.reason(lake, [lake.problems], dataset="whole")
    assert not again.new and again.manifest.digest == whole[2].digest


def test_both_versions_can_be_mixed(lake, whole):
    import mixtures

    tuned = mixtures.mix(lake, {"whole@v1": {"weight": 1, "max_epochs": 1}}, dataset="tuned").manifest
    paired = mixtures.mix(lake, {"whole.pairs@v1": {"weight": 1, "max_epochs": 1}}, dataset="paired").manifest
    assert tuned.kept.count == whole[2].kept.count and paired.kept.count == whole[1].kept.count
    assert any(window.arrays["loss_mask"].any() for window in mixtures.windows(lake, paired))


# Why


def test_why_tells_of_a_problem_and_of_a_sample(lake, whole):
    versions = Versions(lake)
    family = family_of(lake, whole[0])
    problem = family[0]["parent_id"]
    own = [row for row in family if row["parent_id"] == problem]
    answer = why(versions, problem, "whole.rollouts")
    assert [child.id for child in answer.children] == [row["id"] for row in sorted(own, key=lambda r: r["sample"])]
    assert [story.fate for story in answer.stories] == ["kept"]
    sample = own[-1]
    answer = why(versions, sample["id"])
    (child,) = answer.children
    assert (child.parent_id, child.verdict, child.verifier, child.engine) == (
        problem,
        sample["verdict"],
        "parity@1",
        "base@v1",
    )
    datasets = {story.dataset for story in answer.stories}
    assert "whole" in datasets <= {"whole", "tuned"}, "its fate among what is fine-tuned on, and in a mixture of it"


# What is refused, planned, limited, extended


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({"engine": {"model": ""}}, r"recipe\.engine\.model is empty"),
        ({"engine": {"model": "base"}}, r"recipe\.engine\.model: 'base' is no exact version"),
        ({"engine": {"model": "math@v1"}}, r"recipe\.engine\.model: math@v1 is no model: it holds samples"),
        ({"engine": {"model": "base@v1", "tokenizer": "web@v1"}}, r"web@v1 has none: it holds documents"),
        ({"engine": {"model": "base@v1", "context": 1 << 20}}, r"the context of base@v1 is"),
        ({"engine": {"kind": "openai", "model": "gpt"}}, r"run\.hosts\.endpoint\.url is empty"),
        ({"decontaminate": {"against": ["nothing@v1"]}}, r"recipe\.decontaminate\.against: .*nothing"),
        ({"decontaminate": {"against": ["base@v1"]}}, r"recipe\.decontaminate\.against: base@v1"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_drawn(lake, recipe, problem):
    with pytest.raises(BadConfig, match=problem):
        reasonings.reason(lake, [lake.problems], dataset="refused", **recipe)
    assert Versions(lake).latest("refused.rollouts") is None


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({"draws": {"max_tokens": 300}}, "max_tokens=300: less than engine.context=256"),
        ({"draws": {"temperature": 0}}, "at 0 all samples"),
        ({"engine": {"kind": "magic"}}, "engine"),
        ({"prompt": {"template": "solve it"}}, "it says nowhere {question}"),
        ({"stop": {"accept": 3, "at_most": 2}}, "1 <= accept <= at_most"),
        ({"select": {"balance": {"by": "colour"}}}, "by='colour'"),
        ({"select": {"balance": {"shares": {"easy": 0.4}}}}, "they come to 0.4, not to 1"),
        ({"decontaminate": {"against": []}}, "name at least one version"),
        ({"problems": {"kind": "riddle"}}, "kind"),
    ],
)
def test_settings_that_cannot_be_are_refused(lake, recipe, problem):
    with pytest.raises(ValueError, match=problem):
        reasonings.config([lake.problems], **recipe)


def test_a_plan_draws_nothing(lake, whole):
    with pytest.raises(PlanOnly) as plan:
        recipe = {"dataset": "planned", "draws": reasonings.RECIPE["draws"] | {"seed": 77}}
        reasonings.reason(lake, [lake.problems], Runner(lake, workers=0, plan=True), **recipe)
    assert (plan.value.title, len(plan.value.todo)) == ("roll out", 3)


def test_a_preview_commits_to_names_of_its_own(lake):
    reasonings.reason(lake, [lake.problems], dataset="short", limit=6)
    assert reasonings.latest(lake, "short.rollouts.limit").received.count == 6
    assert reasonings.latest(lake, "short.limit").form == "samples"
    assert Versions(lake).latest("short") is None


def test_a_ledger_of_samples_with_a_gap_is_no_ledger(lake, whole):
    import pyarrow as pa

    from gristmill.lake.accounts.balance import BalanceError
    from gristmill.lake.accounts.fan import SAMPLES

    family = [row for row in family_of(lake, whole[0]) if row["sample"] != 1]
    with pytest.raises(BalanceError, match="numbered"):
        sample_tallies(pa.Table.from_pylist(family, schema=SAMPLES))
