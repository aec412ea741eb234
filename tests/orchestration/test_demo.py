"""The demo: its server says as much as it likes, and its rounds of reasoning end it where nothing was gained."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import waiting
from rich.console import Console

from gristmill.orchestration.demo import reasoning, seeing
from gristmill.orchestration.demo.training import Score

TALKS = """
import pathlib, sys, time
print("loading", flush=True)
print("listening at http://127.0.0.1:1/v1.", flush=True)
for _ in range(40):
    print("." * 8192, flush=True)  # a pipe holds 65,536 bytes
pathlib.Path(sys.argv[1]).touch()
time.sleep(3600)
"""


def script(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Lets a script stand for every grist command."""
    monkeypatch.setattr(seeing, "command", lambda *arguments: [sys.executable, "-c", text, *arguments])


def test_a_server_that_says_more_than_a_pipe_holds_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, TALKS)
    with seeing.served(str(tmp_path / "done")) as url:
        assert url == "http://127.0.0.1:1/v1"
        waiting.until((tmp_path / "done").exists, "the server said all that it had to say")
    assert capsys.readouterr().out.count("." * 8192) == 40


def test_a_server_that_does_not_start_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "print('no such model'); raise SystemExit(4)")
    with pytest.raises(SystemExit, match="the server did not start, exit code 4"), seeing.served():
        pass


def rolled_out(verdicts: dict[str, int], **reasons: int) -> dict[str, Any]:
    """Rollouts as `grist show --json` tells them, as far as the demo looks; a number of evaluation beside."""
    tallies = {verdict: [count, "0" * 32] for verdict, count in verdicts.items()}
    statistics = {"rollouts": {"reasons": reasons}}
    return {"samples": [sum(verdicts.values()), ""], "verdicts": tallies, "statistics": statistics, "version": 3}


@pytest.mark.parametrize(("after", "ends"), [(0.50, False), (0.45, True)])
def test_two_rounds_that_gain_too_little_end_the_demo(
    monkeypatch: pytest.MonkeyPatch, after: float, ends: bool
) -> None:
    commands: list[tuple[str, ...]] = []
    scores = iter([Score(0.40, 0.35, 0.45, 400), Score(after, 0.4, 0.6, 400)])
    results = itertools.cycle([{"new": True, "digest": "a"}, {"new": False, "digest": "a"}])
    rollouts = rolled_out({"accepted": 1, "rejected": 3, "undecided": 0}, wrong=3)
    monkeypatch.setattr(reasoning, "grist", lambda *arguments: str(commands.append(arguments)))
    monkeypatch.setattr(reasoning, "score", lambda *arguments: next(scores))
    monkeypatch.setattr(reasoning, "result", lambda output: next(results))
    monkeypatch.setattr(reasoning, "described", lambda lake, version: rollouts)
    if ends:
        with pytest.raises(SystemExit, match=r"gain at least \d+% of the held-out problems: \+5.0%"):
            reasoning.reasoning("lake", Path("nano"))
    else:
        assert reasoning.reasoning("lake", Path("nano")) == pytest.approx(0.1)
    trained = [words for words in commands if words[0] == "train"]
    assert len(trained) == 3 and "recipe.model=nano.pretrain@v1" in trained[0]
    assert "recipe.model=reasoner.first@v1" in trained[2] and "reasoner-second@v1" in str(trained[2])
    shown = [words for words in commands if "--verdict" in words]
    assert [words[3] for words in shown] == ["accepted", "rejected"]
    assert ("diff", "eval@v2", "eval@v3", "--lake", "lake") in commands


def test_acceptance_is_a_table_of_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = {"first": rolled_out({"accepted": 30, "rejected": 70}, wrong=60, false_step=10)}
    Console(width=120).print(reasoning.acceptance(rounds))
    line = next(line for line in capsys.readouterr().out.splitlines() if "first" in line)
    assert [cell.strip() for cell in line.strip("│┃ ").split("│")] == [
        "first", "100", "30.0%", "21.9% to 39.6%", "wrong 60, false_step 10",
    ]  # fmt: skip
