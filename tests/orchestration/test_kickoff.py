"""`grist kickoff`: nodes in processes of their own, what they say, and what is shown of them. How it is killed:
tests/orchestration/test_kickoff_s3.py, and tests/test_flows.py in a folder."""

from __future__ import annotations

import json
import sys
from collections import deque
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import waiting
from kickoffs import Graphs
from rich.console import Console
from toy_pipeline import RUNS, UpperConfig
from typer.testing import CliRunner

from gristmill.orchestration.cli.main import app
from gristmill.orchestration.kickoff import local
from gristmill.orchestration.kickoff.command import run
from gristmill.orchestration.kickoff.local import Processes, reason
from gristmill.orchestration.kickoff.show import Shown, draw_ends
from gristmill.pipelines.kickoff.bring import End
from gristmill.pipelines.kickoff.graph import Node
from gristmill.pipelines.registry import PIPELINES


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graphs:
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    monkeypatch.setitem(PIPELINES, "upper", UpperConfig)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    RUNS.clear()
    return Graphs(tmp_path)


def answered(graphs: Graphs, capsys: pytest.CaptureFixture[str], plan: bool = False, **how: Any) -> tuple[int, Any]:
    """The exit code of a kickoff, and what it says as JSON."""
    code = run(graphs.asked(nodes(graphs), **how), plan, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def nodes(graphs: Graphs) -> dict[str, Any]:
    return {"a": graphs.upper("a"), "b": graphs.upper("b", "node:a")}


def test_what_every_node_came_to_is_a_table_or_json(graphs, capsys):
    code, document = answered(graphs, capsys)
    ends = [(end["node"], end["state"], end["versions"]) for end in document["nodes"]]
    assert code == 0 and ends == [("a", "made", ["a@v1"]), ("b", "made", ["b@v1"])]
    assert run(graphs.asked(nodes(graphs))) == 0 and RUNS == ["a.jsonl", "b.jsonl"]
    table = capsys.readouterr().out.splitlines()
    assert [line.split() for line in table[1:]] == [["a", "done", "before", "a@v1"], ["b", "done", "before", "b@v1"]]


def test_a_plan_runs_nothing(graphs, capsys):
    assert run(graphs.asked(nodes(graphs)), plan=True) == 0 and not RUNS
    table = capsys.readouterr().out
    assert "2 nodes, 0 done, 2 to run" in table and "unknown, no receipt tells of any of them" in table
    assert run(graphs.asked(nodes(graphs), only=("b",)), plan=True) == 0
    table = capsys.readouterr().out
    assert "held" in table and "by a" in table and "2 nodes, 0 done, 1 held, 0 to run" in table
    answered(graphs, capsys)
    graphs.lines("b", 2)
    code, document = answered(graphs, capsys, plan=True)
    assert code == 0 and [each["done"] for each in document["plan"]] == [["a@v1"], None]
    assert document["plan"][1]["estimate"]["from"] == ["b@v1"] and document["unknown"] == 0
    assert run(graphs.asked(nodes(graphs), run={"cost_per_cpu_hour": 2}), plan=True) == 0
    assert "(by receipts); cost: " in capsys.readouterr().out


def test_a_page_on_what_nodes_made_is_written_as_far_as_they_are_done(graphs, capsys):
    page = {"file": str(graphs.folder / "pages" / "kickoff.html"), "nodes": ["a", "b"]}
    code, document = answered(graphs, capsys, report=page, only=("a",))
    assert code == 0 and document["report"] == page["file"]
    assert "a@v1" in Path(page["file"]).read_text() and "b@v1" not in Path(page["file"]).read_text()
    assert run(graphs.asked(nodes(graphs), report=page)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {page['file']}"
    assert "b@v1" in Path(page["file"]).read_text() and "Kickoff toy" in Path(page["file"]).read_text()
    code, document = answered(graphs, capsys)
    assert document["report"] is None
    assert run(graphs.asked(nodes(graphs), report={**page, "nodes": ["x"]})) == 2
    assert "report.nodes: 'x': there is no such node; there are a, b" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_hides_nothing_of_what_nodes_came_to(graphs, capsys):
    (graphs.folder / "file").write_text("no folder")
    page = {"file": str(graphs.folder / "file" / "page.html"), "nodes": ["a"]}
    code, document = answered(graphs, capsys, report=page)
    assert code == 5 and [end["state"] for end in document["nodes"]] == ["made", "made"]
    assert document["report"] is None and document["fault"].startswith("no report: ")
    assert run(graphs.asked(nodes(graphs), report=page)) == 5
    table = capsys.readouterr().out
    assert "b@v1" in table and "no report: " in table


def test_what_is_refused_is_one_line_a_mistake_and_exit_code_2(graphs, capsys):
    wrong = {"a": graphs.upper("a", "node:x"), "b": graphs.upper("b")}
    assert run(graphs.asked(wrong)) == 2
    assert capsys.readouterr().err == "error: nodes.a: recipe.sources.0: 'x': there is no such node; there are a, b\n"


def test_the_command_takes_its_options(graphs):
    asked = graphs.asked(nodes(graphs))
    always = ["kickoff", str(asked.config), "--lake", str(asked.lake), "--json"]
    result = CliRunner().invoke(app, [*always, "--only", "a"])
    assert result.exit_code == 0 and [end["node"] for end in json.loads(result.stdout)["nodes"]] == ["a"]
    result = CliRunner().invoke(app, [*always, "--from", "b", "--set", "run.nodes=0", "--plan"])
    assert [each["chosen"] for each in json.loads(result.stdout)["plan"]] == [False, True]


# Processes


def child(monkeypatch: pytest.MonkeyPatch, text: str) -> tuple[Processes, list[str]]:
    """Processes that run a script, and the lines that nodes said."""
    lines: list[str] = []
    monkeypatch.setattr(local, "COMMAND", (sys.executable, "-c", text))
    return Processes(lambda node, line: lines.append(f"{node}: {line}")), lines


def node_and_config(graphs: Graphs) -> tuple[Node, UpperConfig]:
    node = graphs.prepared({"a": graphs.upper("a")}).graph.nodes["a"]
    assert isinstance(node.outline, UpperConfig)
    return node, node.outline


def test_a_process_gets_its_config_on_stdin_and_what_it_says_is_handed_on(graphs, monkeypatch):
    processes, lines = child(monkeypatch, "import json; print(json.loads(input())['recipe']['dataset'])")
    assert processes(*node_and_config(graphs)).code == 0 and lines == ["a: a"]


@pytest.mark.parametrize("new", [True, False])
def test_a_process_says_whether_it_made_the_version(graphs, monkeypatch, new):
    processes, _ = child(monkeypatch, f"""print('{{"dataset": "a", "version": 1, "new": {str(new).lower()}}}')""")
    assert processes(*node_and_config(graphs)).new is new


def test_no_secret_of_the_environment_is_handed_on(graphs, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    processes, lines = child(
        monkeypatch, "import os; print('key', os.environ['AWS_SECRET_ACCESS_KEY']); raise SystemExit(3)"
    )
    ended = processes(*node_and_config(graphs))
    assert lines == ["a: key ***"] and ended.error == "key ***"


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("import sys; print('12:00 INFO x'); sys.exit('error: recipe.a: b')", 1, "recipe.a: b"),
        (
            "import sys; print('error: one', file=sys.stderr); print('  two', file=sys.stderr); sys.exit(3)",
            3,
            "one\n  two",
        ),
        ("import os; os.kill(os.getpid(), 9)", 5, "its process was killed (signal 9)"),
        ("import os; os.abort()", 1, ""),
        ("raise SystemExit(4)", 4, "its process ended with exit code 4"),
    ],
)
def test_why_a_process_failed(graphs, monkeypatch, text, code, why):
    processes, _ = child(monkeypatch, text)
    ended = processes(*node_and_config(graphs))
    assert ended.code == code and ended.error.startswith(why)


def test_the_reason_is_the_last_error_with_what_follows_it_or_the_last_lines():
    assert reason(deque(["error: a", "b", "error: c", "  d"])) == "c\n  d"
    assert reason(deque("abcdefg")) == "c\nd\ne\nf\ng"


# What is shown


def test_a_log_has_a_line_a_start_and_an_end_and_one_a_minute(caplog, tmp_path):
    caplog.set_level("INFO", logger="gristmill")
    console = Console(file=StringIO())
    with Shown(2, console, tmp_path / "logs", every=0.01) as shown:
        shown.started("a")
        shown.line("a", "screen: 3 of 9 pieces")
        waiting.until(lambda: any("screen: 3 of 9" in line for line in caplog.messages), "the line of a minute")
        shown.ended(End("a", "failed", why="no disk", code=5, seconds=61))
        shown.ended(End("b", "held", why="a", code=5))
    logged = [line for line in caplog.messages if "pieces" not in line]
    assert logged == ["a: starts", "a: failed, 61 s: no disk", "b: held: by a"]
    assert (tmp_path / "logs" / "a.log").read_text() == "screen: 3 of 9 pieces\n"


def test_a_terminal_shows_who_runs_and_keeps_each_end(tmp_path):
    with (tmp_path / "screen").open("w") as file:
        console = Console(file=file, force_terminal=True, width=80, color_system=None)
        with Shown(2, console) as shown:
            shown.started("a")
            shown.line("a", "\x1b]0;forged\x07 pieces")
            shown._live.refresh()
            shown.ended(End("a", "made", seconds=3))
    screen = (tmp_path / "screen").read_text()
    assert "0 of 2 nodes" in screen and "\\x1b]0;forged\\x07 pieces" in screen and "done now    a" in screen


def test_a_hostile_reason_does_not_act_on_a_terminal(tmp_path):
    with (tmp_path / "screen").open("w") as file:
        draw_ends(Console(file=file, width=100), [End("a", "failed", why="\x1b[2J gone", code=5)])
    assert "\\x1b[2J gone" in (tmp_path / "screen").read_text()
