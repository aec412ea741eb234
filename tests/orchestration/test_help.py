"""What the command teaches and how loud it is: examples, completion, -q and -v, colours."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lake_builder
import pytest
import typer
from typer._completion_shared import get_completion_script
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.examples import EXAMPLES
from gristmill.orchestration.cli.main import app

COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[\d;]*)?m")


def commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake") / "lake"
    store = open_store(str(folder))
    lake_builder.commit(store, "web", lake_builder.pages(3))
    lake_builder.commit(store, "web", lake_builder.pages(4), recipe={"x": 1})
    lake_builder.commit(store, "web.limit", lake_builder.pages(2))
    Versions(store).tag("web", 1, "released")
    return folder


def test_every_command_has_an_example_and_every_example_a_command() -> None:
    assert {words for words, _ in commands()} == set(EXAMPLES)


@pytest.mark.parametrize("words", [words for words, _ in commands()])
def test_an_example_can_be_typed(words: str) -> None:
    """It parses: arguments, options and their values; nothing is run."""
    line = EXAMPLES[words].removeprefix('eval "$(').removesuffix(')"')
    first, *arguments = shlex.split(line)
    assert first == "grist" and arguments[: len(words.split())] == words.split()
    command = dict(commands())[words]
    given = [__file__ if "jsonl" in word or word == "page.txt" else word for word in arguments[len(words.split()) :]]
    assert command.make_context(words, given).params


@pytest.mark.parametrize("words", ["run", "export dataset", "ls"])
def test_the_help_shows_it(words: str) -> None:
    shown = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout
    assert EXAMPLES[words] in shown


def completed(lake: Path | None, *words: str, **environment: str) -> list[str]:
    """What a shell is offered for the last of these words."""
    asked = {"_GRIST_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": shlex.join(["grist", *words])}
    environment = {"GRIST_LAKE": str(lake)} if lake else environment
    text = CliRunner().invoke(app, prog_name="grist", env={"GRIST_LAKE": None, **asked, **environment}).stdout
    return re.findall(r'"([^"]+)"', text)


def test_names_and_versions_are_completed(lake: Path, tmp_path: Path) -> None:
    assert completed(lake, "show", "we") == ["web", "web.limit"]
    assert completed(lake, "export", "dataset", "web@") == ["web@v2", "web@v1", "web@released"]
    assert completed(lake, "checkout", "web@r") == ["web@released"]
    assert completed(lake, "log", "web.") == ["web.limit"]
    assert completed(None, "show", "--lake", str(lake), "we") == ["web", "web.limit"]
    assert completed(lake, "run", "mixt") == ["mixture"]
    assert completed(lake, "show", "web@x") == []


BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="there is no bash on this machine")
@pytest.mark.parametrize(
    ("words", "breaks", "answers"),
    [
        (["show", "web", "@"], "@ :", ["v2", "v1", "released"]),  # as an interactive bash cuts and replaces it
        (["diff", "web", "@", "v1", "web", "@", "v"], "@ :", ["v2", "v1"]),
        (["show", "web@v"], " :", ["web@v2", "web@v1"]),
        (["show", "we"], "@ :", ["web", "web.limit"]),
    ],
)
def test_bash_completes_a_version_behind_its_at(
    lake: Path, tmp_path: Path, words: list[str], breaks: str, answers: list[str]
) -> None:
    """By the script that is installed, asked as bash asks it."""
    script = get_completion_script(prog_name="grist", complete_var="_GRIST_COMPLETE", shell="bash")
    program = tmp_path / "grist"
    code = "import sys; sys.argv[0] = 'grist'; from gristmill.orchestration.cli.main import main; main()"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    program.chmod(0o755)
    asked = shlex.join(["grist", *words])
    ask = f"COMP_WORDBREAKS={shlex.quote(breaks)}; COMP_WORDS=({asked}); COMP_CWORD={len(words)}"
    done = subprocess.run(
        [
            str(BASH),
            "--norc",
            "-c",
            f'{script}\n{ask}\n_grist_completion {program}\nprintf "%s\\n" "${{COMPREPLY[@]}}"',
        ],
        env=os.environ | {"GRIST_LAKE": str(lake)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == answers, done.stderr


def test_zsh_answers_the_first_press_of_the_key() -> None:
    script = get_completion_script(prog_name="grist", complete_var="_GRIST_COMPLETE", shell="zsh")
    assert script.endswith('[ "$funcstack[1]" = "_grist" ] && _grist_completion "$@"')


def test_where_no_lake_is_nothing_is_completed(tmp_path: Path) -> None:
    assert completed(tmp_path / "none", "show", "we") == []
    assert completed(None, "show", "we") == []
    (tmp_path / "lake.json").write_text("{}")
    assert completed(tmp_path, "show", "we") == []


def test_completing_imports_nothing_that_takes_time(lake: Path) -> None:
    code = (
        "import sys\n"
        "from gristmill.orchestration.cli.main import app\n"
        "try: app(prog_name='grist')\n"
        "finally: print(sorted({'torch', 'ray', 'prefect', 'boto3', 'pandas'} & set(sys.modules)), file=sys.stderr)\n"
    )
    asked = {"_GRIST_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "grist show we", "GRIST_LAKE": str(lake)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True)
    assert '"web"' in done.stdout and done.stderr == "[]\n"


def test_quiet_says_errors_alone_and_verbose_where_they_come_from(lake: Path, tmp_path: Path) -> None:
    def grist(*words: str) -> Any:
        return CliRunner().invoke(app, [*words, "--lake", str(lake)])

    out = str(tmp_path / "out")
    assert "web-00000.parquet written" in grist("checkout", "web@v1", out).stderr
    assert grist("-q", "checkout", "web@v1", str(tmp_path / "again")).stderr == ""
    for option in ("-q", "-v"):
        done = grist(option, "show", "nothing")
        assert done.exit_code == 1 and "error: there is no dataset 'nothing'" in done.stderr
        assert ("Traceback" in done.stderr) == (option == "-v")
    both = grist("-q", "-v", "show", "web")
    assert both.exit_code == 2 and "give one of them" in both.stderr


SHOWN = [["--help"], ["show", "web@v1"], ["ls"], ["export", "dataset"]]
SEVERAL = """
import sys
from gristmill.orchestration.cli.main import app
for words in %r:
    try: app(words, prog_name="grist")
    except SystemExit as end: assert end.code in (0, 2), end.code
"""


def environment(lake: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return kept | {"GRIST_LAKE": str(lake), "TERM": "xterm-256color"} | more


def on_a_terminal(environment: dict[str, str]) -> str:
    """Everything that these commands print where stdout and stderr are a terminal."""
    parent, child = pty.openpty()
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": child, "stderr": child}
    process = subprocess.Popen([sys.executable, "-c", SEVERAL % SHOWN], env=environment, **streams)
    os.close(child)
    text = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(parent, 1 << 16):
            text += part
    os.close(parent)
    assert process.wait() == 0
    return text.decode()


def test_no_color_is_honoured_on_a_terminal(lake: Path) -> None:
    assert COLOUR.search(on_a_terminal(environment(lake))), "nothing has a colour: this test could not fail"
    assert not COLOUR.search(on_a_terminal(environment(lake, NO_COLOR="1")))


def test_where_there_is_no_terminal_nothing_is_escaped(lake: Path) -> None:
    command = [sys.executable, "-c", SEVERAL % SHOWN]
    done = subprocess.run(command, env=environment(lake), capture_output=True, text=True)
    assert done.returncode == 0 and "web@v1" in done.stdout and "\x1b" not in done.stdout + done.stderr
