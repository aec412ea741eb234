"""The demo: its kickoff is killed once and does nothing twice, it goes on in its own folder, and it asks as it says."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gristmill.orchestration.demo import __main__ as demo
from gristmill.orchestration.demo import asked, brought, terminal
from gristmill.orchestration.demo.asked import Question
from gristmill.pipelines.kickoff.plan import Plan, Planned

SLEEPS = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(3600)"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gristmill.place.ROOT", tmp_path)
    return tmp_path


def script(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Lets a script stand for every grist command."""
    monkeypatch.setattr(terminal, "command", lambda *arguments: [sys.executable, "-c", text, *arguments])


# Commands.


def test_a_command_is_killed_when_it_is_time(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    script(monkeypatch, SLEEPS)
    terminal.killed("begun", when=Path("begun").exists, note="in the middle")


def test_a_command_that_was_done_before_it_could_be_killed_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "pass")
    with pytest.raises(SystemExit, match="was killed in the middle"):
        terminal.killed(when=lambda: False, note="never")


def test_a_command_that_fails_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, "print('no such model'); raise SystemExit(4)")
    with pytest.raises(SystemExit, match="exit code 4"):
        terminal.grist("ask")
    assert "no such model" in capsys.readouterr().out


# The folder.


def test_a_folder_that_is_not_the_demos_is_left_alone(folder: Path) -> None:
    (folder / "demo").mkdir()
    (folder / "demo" / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="was not made by the demo"):
        demo.prepare()
    assert [path.name for path in (folder / "demo").iterdir()] == ["thesis.tex"]


def test_data_are_written_once_and_an_earlier_demo_is_gone_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[str, ...]] = []

    def grist(*arguments: str) -> str:
        commands.append(arguments)
        if len(commands) == 1:
            raise SystemExit("a full disk")
        return ""

    monkeypatch.setattr(demo, "grist", grist)
    for _ in range(3):
        demo.prepare()
        try:
            demo.write_data()
        except SystemExit:
            (folder / "demo" / "half").touch()
    assert [words[0] for words in commands] == ["sample-data", "sample-data"]
    assert (folder / "demo" / "half").exists()


# The kickoff.

NODES = ("words", "base", "r1")


class Kickoffs:
    """Stands for `grist kickoff`: a graph of three nodes, of which the first is done when it is killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: dict[str, int] = {}
        self.kills = 0
        self.twice: str | None = None
        monkeypatch.setattr(brought, "planned", self.planned)
        monkeypatch.setattr(brought, "killed", self.killed)
        monkeypatch.setattr(brought, "grist", self.grist)

    def planned(self) -> Plan:
        """Which nodes are done."""

        def of(node: str) -> Planned:
            versions: Any = ()
            if node in self.done:
                versions = (Version(f"{node}@v{self.done[node]}"),)
            return Planned(node, "train", (), True, versions, True, "", None, None)

        return Plan(tuple(map(of, NODES)), 0.0, 0, None)

    def killed(self, *arguments: str, **how: Any) -> None:
        """The first node is done by then."""
        self.kills += 1
        self.done["words"] = 1

    def grist(self, *arguments: str) -> str:
        """Does what is not done, and `twice` once more."""
        before = set(self.done)
        if self.twice is not None:
            before.discard(self.twice)
            self.done[self.twice] += 1
        self.done |= {node: 1 for node in NODES if node not in self.done}
        return "".join(f"{node}  {'done before' if node in before else 'done now'}  {node}@v1\n" for node in NODES)


class Version(SimpleNamespace):
    """A manifest, as far as the demo looks."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, digest="d")

    def __str__(self) -> str:
        return str(self.name)


@pytest.fixture
def kickoffs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kickoffs]:
    demo.prepare()
    yield Kickoffs(monkeypatch)


def test_the_kickoff_is_killed_once_and_given_again(kickoffs: Kickoffs, capsys: pytest.CaptureFixture[str]) -> None:
    brought.LOGS.mkdir()
    line = "hearing.pretrain: step 600 of 600, loss 0.9, LR 1e-03, norm 1.0, 9 tok/s, 0:00:00 left"
    (brought.LOGS / "base.log").write_text(f"INFO {line}, went on behind step 100\nINFO {line}\n")
    (brought.LOGS / "r1.log").write_text(f"INFO {line}\n")
    brought.bring()
    printed = capsys.readouterr().out
    assert kickoffs.kills == 1 and "1 of 3 nodes were done by then" in printed
    assert "base went on behind step 100 of 600" in printed and "r1 went on" not in printed
    assert "not done again: 1 nodes" in printed and "all 3 nodes are done" in printed
    brought.bring()
    printed = capsys.readouterr().out
    assert kickoffs.kills == 1 and "not done again: 3 nodes" in printed and "went on" not in printed


def test_a_demo_that_somebody_else_broke_off_is_not_killed_again(kickoffs: Kickoffs) -> None:
    brought.KILLED.touch()
    kickoffs.done = {"words": 1}
    brought.bring()
    assert kickoffs.kills == 0 and set(kickoffs.done) == set(NODES)


def test_work_that_is_done_twice_ends_the_demo(kickoffs: Kickoffs) -> None:
    kickoffs.twice = "words"
    with pytest.raises(SystemExit, match="what was done before is not done again"):
        brought.bring()


def test_the_kickoff_is_killed_when_two_models_have_left_a_checkpoint(tmp_path: Path) -> None:
    def checkpoint(run: str, step: str) -> Path:
        state = tmp_path / "runs" / run / "checkpoints" / step / "state.json"
        state.parent.mkdir(parents=True)
        state.touch()
        return state

    checkpoint("b", "step-000000050")  # of an earlier kickoff
    under_way = brought.trainings_under_way(tmp_path)
    first = checkpoint("a", "step-000000050")
    checkpoint("a", "step-000000100")
    assert not under_way()
    first.unlink()  # a run that is over takes its folder away
    checkpoint("b", "step-000000100")
    assert under_way()


# Questions.


def tar(path: Path, rows: list[tuple[dict[str, Any], dict[str, bytes]]]) -> None:
    """Samples of a key each: its fields, and files by their endings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, (fields, files) in enumerate(rows):
            for ending, data in {"json": json.dumps(fields).encode(), **files}.items():
                member = tarfile.TarInfo(f"row-{number}.{ending}")
                member.size = len(data)
                archive.addfile(member, BytesIO(data))


def sample(folder: Path) -> None:
    """The files that are asked from, each with a first row and another one."""

    def chat(question: str, answer: str, picture: bool) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"type": "image"}] if picture else []
        content: Any = [*parts, {"type": "text", "text": question}] if picture else question
        reply: Any = [{"type": "text", "text": answer}] if picture else answer
        return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": reply}]}

    def lines(path: Path, rows: list[dict[str, Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    data = folder / asked.DATA
    readings = [chat("first:\nWhat changed?", "", False), chat(":\nWhich is red?", "the star", False)]
    lines(data / "scenes" / "reading-held-out.jsonl", [*readings, chat(":\nWhere?", "!", False)])
    rows = [(chat("Where?", place, True), {"png": place.encode()}) for place in ("left", "right")]
    tar(data / "scenes" / "questions-held-out.tar", rows)
    spoken = [
        ({"question": question, "answer": "blue"}, {"flac": question.encode(), "png": b"p"})
        for question in ("What colour?", "What shape?")
    ]
    tar(data / "speech" / "scenes-held-out.tar", spoken)
    problem = {"question": "Ana has 2. She gets 3. How many now?", "answer": "2+3=5\n#### 5"}
    lines(data / "nano" / "stories-held-out.jsonl", [problem, {"question": "?", "answer": "#### 0"}])


def test_the_first_row_of_each_file_is_asked_with_its_own_picture_and_clip(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(folder)
    commands: list[tuple[str, ...]] = []
    answers = iter(["the star\n", "right\n", "blue\n", "2+3=6\n#### 5\n"])

    def answered(*arguments: str) -> str:
        commands.append(arguments)
        return next(answers)

    monkeypatch.setattr(asked, "grist", answered)
    monkeypatch.setattr(asked, "newest", "{}@v2".format)
    asked.ask_all()
    assert [words[1] for words in commands] == [f"{name}@v2" for name in (*[asked.MODEL] * 3, asked.REASONER)]
    assert commands[0][2] == ":\nWhich is red?" and "--image" not in commands[0]
    assert commands[1][2:5] == ("Where?", "--image", str(asked.ASKED / "picture.png"))
    assert (asked.ASKED / "picture.png").read_bytes() == b"left"
    assert "--audio" in commands[2] and (asked.ASKED / "spoken.flac").read_bytes() == b"What colour?"
    printed = capsys.readouterr().out
    assert printed.count("right; the answer is") == 3 and "wrong; the answer is left" in printed
    assert "3 of 4 answers are right" in printed and "the clip says: What colour?" in printed


@pytest.mark.parametrize(
    ("text", "expected", "right"),
    [
        ("red star", "red star", True),
        ("<think>\nblue\n</think>\n\nred star", "red star", True),
        ("red", "red star", False),
        ("12+3=15\n#### 15", "#### 15", True),
        ("12+3=15", "#### 15", False),
        ("", "yes", False),
    ],
)
def test_an_answer_is_what_a_chain_ends_in_or_all_that_is_said(text: str, expected: str, right: bool) -> None:
    assert asked.is_right(text, expected) == right


def test_a_wrong_answer_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, "print('[red] 7 [/]')")
    monkeypatch.setattr(asked, "newest", "{}@v1".format)
    assert not asked.ask(Question("A sum", "m", "2 + 3?", "#### 5"))
    printed = capsys.readouterr().out
    assert "[red] 7 [/]" in printed and "wrong; the answer is 5" in printed
