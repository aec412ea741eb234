"""Pairs of preferences where there are none: the chains are data all the same, and whoever would train is told."""

from __future__ import annotations

import logging

import pytest
import reasonings
from mixtures import mix
from reasonings import latest, rows_of, three

from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.generate.verifiers import Judging
from gristmill.stages.run.runner import Runner
from gristmill.synth.verify.verdict import Named, Problem, Verdict

COUNT = 6


class Always:
    """A verifier whose verdict is the same whatever it reads."""

    id = "always@1"

    def __init__(self, accepts: bool) -> None:
        self.accepts = accepts

    def verify(self, problem: Problem, chain: str) -> Verdict:
        named = Named("always", 1)
        return named.accept("") if self.accepts else named.reject("wrong", "")


@pytest.fixture
def lake(store, tmp_path):
    reasonings.lake(store, tmp_path)
    store.problems = reasonings.lines(tmp_path / "problems.jsonl", [reasonings.problem(i) for i in range(COUNT)])
    return store


def judged_by(monkeypatch, verifier):
    monkeypatch.setattr("gristmill.stages.generate.judge.judging", lambda kind, checks: Judging(verifier))


def test_where_no_problem_has_a_wrong_chain_the_pairs_are_empty_and_the_chains_are_there(lake, monkeypatch, caplog):
    judged_by(monkeypatch, Always(accepts=True))
    with caplog.at_level(logging.WARNING, "gristmill"):
        reasonings.reason(lake, [lake.problems])
    rollouts, pairs, chains = three(lake, "reasoning")
    assert (pairs.received.count, pairs.kept.count, rows_of(lake, pairs)) == (COUNT, 0, [])
    assert [row.dropped for row in pairs.funnel] == [{"pairs.none_rejected": COUNT}]
    assert chains.kept.count > 0 and rollouts.kept.count == COUNT
    (message,) = [record.getMessage() for record in caplog.records if "is empty" in record.getMessage()]
    assert f"reasoning.pairs is empty, and no stage can be trained on it: not one of {COUNT} problems" in message
    assert f"pairs.none_rejected ({COUNT})" in message
    assert verify(lake, ["reasoning.rollouts", "reasoning.pairs", "reasoning"], deep=True) == []
    again = reasonings.reason(lake, [lake.problems], runner=(runner := Runner(lake, workers=0)))
    assert not again.new and all(ran == 0 for _, _, ran in runner.history)
    with pytest.raises(BadConfig, match=r"reasoning\.pairs@v1 has nothing that fits a window"):
        mix(lake, {"reasoning.pairs@v1": 1}, dataset="pairs")


def test_where_no_chain_is_right_nothing_is_made_of_the_rollouts(lake, monkeypatch):
    judged_by(monkeypatch, Always(accepts=False))
    with pytest.raises(GateFailed, match=rf"reasoning\.pairs: nothing is left: pairs\.none_accepted \({COUNT}\)"):
        reasonings.reason(lake, [lake.problems])
    assert latest(lake, "reasoning.rollouts").kept.count == COUNT
    assert Versions(lake).latest("reasoning.pairs") is None and Versions(lake).latest("reasoning") is None
