"""Rollouts and selected chains on the terminal: verdicts, reasons, groups with intervals, single samples."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import reasonings
from reasonings import family_of, rows_of
from two_versions import grist

from gristmill.lake.query.chains import sample_chains
from gristmill.lake.store.opening import open_store
from gristmill.orchestration.show.children import STRIP, strip

COUNT = 20


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`reasoning` of short and long problems, and `balanced`, the same with shares of difficulties."""
    folder = tmp_path_factory.mktemp("shown")
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    problems = [reasonings.problem(i) for i in range(COUNT)]
    problems += [row | {"question": f"{'It is a long day. ' * 6}{row['question']}"} for row in problems[:5]]
    file = reasonings.lines(folder / "in" / "problems.jsonl", problems)
    with pytest.MonkeyPatch.context() as patch:
        reasonings.by_parity(patch)
        few = {"stop": {"accept": 2, "at_most": 2}}  # so that problems are left without a right chain
        reasonings.reason(store, [file], **few)
        reasonings.reason(store, [file], **few, dataset="balanced", select={"balance": {"by": "length"}})
    return store


def shown(lake: Any, *arguments: str) -> str:
    """What the command prints, in 120 columns, spaces folded."""
    result = grist(*arguments, lake=lake)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


def test_rollouts_show_verdicts_reasons_and_difficulties(lake: Any) -> None:
    manifest = reasonings.latest(lake, "reasoning.rollouts")
    family = family_of(lake, manifest)
    text = shown(lake, "show", "reasoning.rollouts")
    for verdict, count in Counter(row["verdict"] for row in family).items():
        assert f" {verdict} {count} {100 * count / len(family):.1f}% " in text
    for reason, count in Counter(row["reason"] for row in family if row["reason"]).items():
        assert f" {reason} {count} " in text
    for difficulty, count in Counter(row["difficulty"] for row in rows_of(lake, manifest)).items():
        assert f" {difficulty} {count} " in text
    assert f"Samples {len(family)} of 25 problems" in text and "by base@v1" in text and "cost" not in text


def test_chains_show_what_was_drawn_right_and_selected_of_each_group(lake: Any) -> None:
    manifest = reasonings.latest(lake, "reasoning")
    groups = {(row["dimension"], row["group"]): row for row in manifest.statistics["selection"]["groups"]}
    text = shown(lake, "show", "reasoning")
    she = groups["pronouns", "she"]
    cells = [she["share_proposed"], she["share_accepted"], she["share_selected"], she["kept"]]
    percents = [" ({1:.0f}-{2:.0f})".join(["{0:.0f}", ""]).format(*(100 * end for end in cell)) for cell in cells]
    assert f" she {she['problems']} {' '.join(percents)} " in text
    assert "nothing to compare: domain (unknown), language (en)" in text and "What shares cost" not in text
    assert strip(she["kept"]).strip() in text
    thinned = [f"{row['dimension']} {row['group']}: " for row in groups.values() if row["thinned"]]
    assert "difficulty unsolved: " in thinned, "problems without a right chain have none that is selected"
    assert all(f"{name}{groups[tuple(name[:-2].split(' ', 1))]['kept'][0]:.1%} of its " in text for name in thinned)


def test_a_narrow_terminal_cuts_nothing(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "79")
    lines = grist("show", "balanced", lake=lake).stdout.splitlines()
    assert [line for line in lines if "…" in line and "█" not in line] == []


def test_what_shares_cost_is_shown(lake: Any) -> None:
    text = shown(lake, "show", "balanced")
    costs = reasonings.latest(lake, "balanced").statistics["selection"]["balance"]
    assert sum(cost["before"] - cost["after"] for cost in costs) > 0
    for cost in costs:
        assert f" {cost['group']} {100 * cost['share']:.1f}% {cost['before']} {cost['after']} " in text


def test_an_interval_is_a_picture() -> None:
    assert strip((0.5, 0.25, 0.75)) == "      |-----o----|"
    assert strip((0.0, 0.0, 1.0)) == f"o{'-' * (STRIP - 2)}|" and strip((1.0, 1.0, 1.0)) == f"{'o':>{STRIP}}"


def test_samples_of_a_verdict_are_drawn_with_their_problem(lake: Any) -> None:
    manifest = reasonings.latest(lake, "reasoning.rollouts")
    rejected = {row["id"]: row for row in family_of(lake, manifest) if row["verdict"] == "rejected"}
    chains = {sample["id"]: (row, sample) for row in rows_of(lake, manifest) for sample in row["samples"]}
    drawn = json.loads(
        grist("sample", "reasoning.rollouts", "--verdict", "rejected", "-n", "3", "--json", lake=lake).stdout
    )
    assert drawn["population"] == len(rejected) > 3 and len(drawn["chains"]) == 3
    for chain in drawn["chains"]:
        problem, sample = chains[chain["id"]]
        assert (chain["question"], chain["gold"], chain["text"]) == (problem["text"], problem["gold"], sample["text"])
        assert (chain["reason"], chain["value"]) == tuple(rejected[chain["id"]][name] for name in ("reason", "value"))
        text = shown(lake, "sample", "reasoning.rollouts", "--verdict", "rejected", "-n", "3", "--full")
        assert f"rejected, by {chain['reason']}, {chain['value']}, judged by parity@1" in text
        assert " ".join(problem["text"].split()) in text
    assert sample_chains(lake, manifest, "rejected", 3) == sample_chains(lake, manifest, "rejected", 3)
    every = sample_chains(lake, manifest, "rejected", 999, reason="parity.odd")
    assert {chain.id for chain in every.chains} == {i for i, row in rejected.items() if row["reason"] == "parity.odd"}


def test_a_problem_is_shown_with_all_its_samples(lake: Any) -> None:
    text = shown(lake, "sample", "reasoning.rollouts", "-n", "25", "--full")
    for row in family_of(lake, reasonings.latest(lake, "reasoning.rollouts")):
        assert f"sample {row['sample']}, {row['verdict']}" in text
    assert "'verdict':" not in text, "no row as Python writes it"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["reasoning.rollouts", "--verdict", "wrong"], "verdict 'wrong'; allowed: accepted, rejected, undecided"),
        (["math", "--verdict", "accepted"], "math@v1 has no samples with verdicts: it holds samples"),
        (["reasoning.rollouts", "--verdict", "accepted", "--reason", "luck"], "no accepted sample with reason 'luck'"),
        (["reasoning.rollouts", "--verdict", "accepted", "--fate", "kept"], "which have no --fate"),
        (["reasoning.rollouts", "--verdict", "accepted", "--sheet", "a.png"], "--source or --sheet"),
    ],
)
def test_what_cannot_be_drawn_is_refused(lake: Any, tmp_path: Path, arguments: list[str], problem: str) -> None:
    result = grist("sample", *arguments, lake=lake)
    assert result.exit_code != 0 and problem in " ".join(result.output.split()), result.output
