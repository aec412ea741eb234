"""README, CONTRIBUTING and docs name what there is: paths, Python names, commands, options, targets, config keys.

Names are found by their form and looked up where they are defined: in the tree, by import, in the command itself, in
the Makefile, in the classes of the configs. Each kind has a test of its own that a wrong name is seen. The paths that
docstrings and comments of the code give are looked up as well.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shlex
import typing
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from language import PACKAGES, sources
from pydantic import BaseModel

from gristmill.orchestration.cli.main import app
from gristmill.pipelines.command import Request, resolve
from gristmill.pipelines.kickoff.config import KickoffConfig
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import BadConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FOLDERS = "|".join((*PACKAGES, "gristmill", "conf", "deploy", "docs", "tests"))
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
PATH = re.compile(rf"(?<![\w/.:{{}}-])(?:{FOLDERS})/[\w./*-]*[\w*]")
FILE = re.compile(rf"(?<![\w/.:{{}}-])(?:{FOLDERS})/[\w./-]*\w\.(?:py|md|yaml)\b")
PYTHON = re.compile(r"(?<![\w/.-])gristmill(?:\.[A-Za-z_]\w*)+")
COMMAND = re.compile(r"(?:^|`|\()(?:grist)((?: +[\w@./:='{}\[\]*,\"-]+)+)", re.MULTILINE)
TARGET = re.compile(r"(?:^|`|&& )make ([a-z][\w-]*)", re.MULTILINE)
KEY = re.compile(r"(?<![\w./-])(?:recipe|run)(?:\.[a-z]\w*)+")
CONFIGS = sorted((ROOT / "conf").glob("*.yaml"))
NEW = re.compile(r"^New file `([^`]+)`", re.MULTILINE)
"""A file that the page tells its reader to write; a test that walks the page writes it."""
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")
"""Of an example: conf/NAME.yaml."""


# What is named


def wrong_links(text: str, page: Path) -> Iterator[str]:
    """Relative links that lead nowhere."""
    yield from (link for link in LINK.findall(text) if not (page.parent / link).exists())


def wrong_paths(text: str, page: Path) -> Iterator[str]:
    """Paths and patterns below the repository's folders that nothing has, and that the page does not have written."""
    new = set(NEW.findall(text))
    for path in PATH.findall(text):
        if not PLACEHOLDER.search(path) and path not in new and not any(ROOT.glob(path)):
            yield path


def wrong_names(text: str, page: Path) -> Iterator[str]:
    """Dotted names of gristmill, and imports in blocks of Python, that cannot be resolved."""
    names = PYTHON.findall(text)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gristmill"):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
    new = tuple(f"gristmill.{path.removesuffix('.py').replace('/', '.')}." for path in NEW.findall(text))
    yield from (name for name in names if not f"{name}.".startswith(new) and not resolves(name))


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        try:
            value: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise  # not the name on the page: something that the module imports
            continue
        for part in parts[length:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


@cache
def whole_command() -> Any:
    """`grist` with all its commands; put together once."""
    return typer.main.get_command(app)


def wrong_commands(text: str, page: Path) -> Iterator[str]:
    """`grist` with a command or an option that it does not have; a line's continuation belongs to it."""
    for match in COMMAND.finditer(text.replace("\\\n", " ")):
        words = match[1].split()
        command = whole_command()
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            name = words.pop(0)
            if name not in command.commands:
                yield f"grist {name}"
                break
            command = command.commands[name]
        else:
            options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            yield from (f"grist {command.name} {option}" for option in sorted(used - options - {"--help"}))


def wrong_targets(text: str, page: Path) -> Iterator[str]:
    """Targets that the Makefile does not have."""
    there = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    yield from (f"make {target}" for target in TARGET.findall(text) if target not in there)


def wrong_keys(text: str, page: Path) -> Iterator[str]:
    """Keys that no pipeline's config has, nor a kickoff's."""
    for key in KEY.findall(text):
        if not any(has_key(config, key.split(".")) for config in (*PIPELINES.values(), KickoffConfig)):
            yield key


def has_key(section: Any, parts: list[str]) -> bool:
    """Whether a config class, or a leaf of one, has this path of keys."""
    for part in parts:
        if part.isdigit() and typing.get_origin(section) is tuple:  # an entry of a list, by its number
            section = typing.get_args(section)[0]
            continue
        fields: dict[str, Any] = {}
        if isinstance(section, type) and issubclass(section, BaseModel):
            fields = {name: field.annotation for name, field in section.model_fields.items()}
        elif dataclasses.is_dataclass(section):
            kinds = typing.get_type_hints(section)  # a field's own type may be a text
            fields = {field.name: kinds[field.name] for field in dataclasses.fields(section)}
        if part not in fields:
            return False
        kinds = [kind for kind in typing.get_args(fields[part]) if kind is not type(None)]
        optional = type(None) in typing.get_args(fields[part]) and len(kinds) == 1
        section = kinds[0] if optional else fields[part]
    return True


NO_NUMBER = "Input should be a valid integer, unable to parse string as an integer, found 'many'"
RUN = re.compile(r"(?:^|`)(grist (?:run|train) [^`\n]+)", re.MULTILINE)


def wrong_configs(text: str, page: Path) -> Iterator[str]:
    """Commands that run a configuration of this tree, with settings that it refuses: a key or a value. A page that
    writes code of its own is walked in a copy of the tree."""
    if NEW.search(text):
        return
    for line in RUN.findall(text.replace("\\\n", " ")):
        words = shlex.split(line, comments=True)[2:]
        config = Path(words[0])
        known = (ROOT / config).exists() if config.suffix else f"{config}.yaml" in {p.name for p in CONFIGS}
        if not known or "..." in words or PLACEHOLDER.search(words[0]):
            continue
        settings = [after for before, after in pairwise(words) if before == "--set"]
        try:
            resolve(Request(ROOT / config if config.suffix else config, tuple(settings), "lake"))
        except BadConfig as error:
            yield f"{line}: {error}"


CHECKS: dict[str, Callable[[str, Path], Iterator[str]]] = {
    "links": wrong_links,
    "paths": wrong_paths,
    "names": wrong_names,
    "commands": wrong_commands,
    "targets": wrong_targets,
    "keys": wrong_keys,
    "configs": wrong_configs,
}


@pytest.mark.parametrize("kind", CHECKS)
def test_what_the_pages_name_is_there(kind: str) -> None:
    wrong = {str(page.relative_to(ROOT)): sorted(set(CHECKS[kind](page.read_text(), page))) for page in PAGES}
    assert {page: names for page, names in wrong.items() if names} == {}


def test_paths_in_docstrings_and_comments_are_there() -> None:
    wrong = {}
    for file in sources((*PACKAGES, "tests")):
        if file.path == "tests/test_docs.py":
            continue  # names what is not there
        paths = {path for path in FILE.findall(file.text) if not PLACEHOLDER.search(path)}
        if missing := sorted(path for path in paths if not (ROOT / path).exists()):
            wrong[file.path] = missing
    assert wrong == {}


def test_the_list_of_decisions_has_each_page_by_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"^\d+\. \[(.+)\]\((.+)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    pages = [path for path in sorted(folder.glob("*.md")) if path.name != "README.md"]
    assert listed == [(page.read_text().partition("\n")[0].removeprefix("# "), page.name) for page in pages]


@pytest.mark.parametrize(
    ("kind", "text", "wrong"),
    [
        ("links", "[why](nowhere.md) and [that](README.md) and [web](https://example.org)", ["nowhere.md"]),
        (
            "paths",
            "`lake/nowhere.py`, (lake/store/base.py), conf/NAME.yaml, /data/lake/x, s3://b/lake/x",
            ["lake/nowhere.py"],
        ),
        ("names", "`gristmill.lake.nowhere`, gristmill.windows, gristmill.lake.query", ["gristmill.lake.nowhere"]),
        ("paths", "New file `lake/mine.py`:\n`lake/mine.py`, `lake/other.py`", ["lake/other.py"]),
        ("names", "```python\nfrom gristmill.api import open, shut\n```", ["gristmill.api.shut"]),
        ("commands", "`grist dance`\ngrist show web@v1 --json", ["grist dance"]),
        ("commands", "grist show web@v1 \\\n    --backwards", ["grist show --backwards"]),
        ("targets", "`make demo` and `make coffee`", ["make coffee"]),
        (
            "configs",
            "`grist run web --set run.workers=many`",
            [f"grist run web --set run.workers=many: run.workers: {NO_NUMBER}"],
        ),
        ("keys", "recipe.scan.chunk_bytes, recipe.scan.chunk, run.workers", ["recipe.scan.chunk"]),
    ],
)
def test_a_wrong_name_is_seen(kind: str, text: str, wrong: list[str]) -> None:
    assert list(CHECKS[kind](text, ROOT / "README.md")) == wrong
