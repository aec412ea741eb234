"""Lessons of several seeds: what was kept is not learned again, and what is lacking fails at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from seeds import Result, Study, main


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lesson sets is as it was, afterwards."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


@dataclass
class Learner:
    """Measures a value a seed, and remembers what it was asked."""

    values: dict[int, float]
    learned: list[int] = field(default_factory=list)
    shown: list[tuple[Mapping[str, Result], list[str]]] = field(default_factory=list)

    def learn(self, folder: Path, seed: int) -> Result:
        assert folder.name == f"seed-{seed}" and folder.is_dir()
        self.learned.append(seed)
        return {"value": self.values[seed]}

    def study(self) -> Study:
        return Study(
            name="toy_learning",
            recipe="a toy",
            kept="toy.json",
            learned=self.learn,
            lacking=lambda seed, result: [f"seed {seed}: {result['value']}"] if result["value"] < 0.5 else [],
            show=lambda results, failed: self.shown.append((results, failed)),
        )


def test_a_seed_that_was_learned_is_not_learned_again(tmp_path: Path) -> None:
    learner = Learner({0: 0.9, 1: 0.8, 2: 0.7})
    folder = ["--folder", str(tmp_path)]
    assert main(["--seeds", "0", "1", *folder], learner.study(), "") == 0
    assert main([*folder, "--out", str(tmp_path / "out.json")], learner.study(), "") == 0
    assert learner.learned == [0, 1, 2]
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["seeds"] == {"0": {"value": 0.9}, "1": {"value": 0.8}, "2": {"value": 0.7}}
    assert (written["name"], written["recipe"]) == ("toy_learning", "a toy")


def test_what_a_seed_lacks_is_shown_and_fails_after_all_seeds_were_learned(tmp_path: Path) -> None:
    learner = Learner({0: 0.4, 1: 0.8})
    assert main(["--seeds", "0", "1", "--folder", str(tmp_path)], learner.study(), "") == 1
    assert learner.learned == [0, 1]
    assert learner.shown == [({"0": {"value": 0.4}, "1": {"value": 0.8}}, ["seed 0: 0.4"])]


def test_a_seed_that_breaks_off_keeps_those_before_it(tmp_path: Path) -> None:
    learner = Learner({0: 0.9})
    with pytest.raises(KeyError):
        main(["--seeds", "0", "7", "--folder", str(tmp_path)], learner.study(), "")
    assert json.loads((tmp_path / "seed-0" / "toy.json").read_text()) == {"value": 0.9}
