"""The files of conf/ and their recipes: keys that a recipe has and its file lacks are added with their defaults.

`python tests/conf_files.py --write` after a new key; a comment that says what it does is yours to write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from gristmill.pipelines.registry import PIPELINES

CONF = Path(__file__).parents[1] / "conf"


def completed(text: str, default: dict[str, Any]) -> str:
    """The text of a file with every key of `default`, each missing one behind the key that stands before it there."""
    lines = text.splitlines()
    while (missing := _first_missing(yaml.safe_load("\n".join(lines)), default)) is not None:
        path, before, value = missing
        at, indent = _end_of(lines, (*path[:-1], before) if before else path[:-1]), "  " * (len(path) - 1)
        lines.insert(at, f"{indent}{path[-1]}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _first_missing(data: Any, default: dict[str, Any], at: tuple[str, ...] = ()) -> Any:
    """(path of a key that is missing, the key before it, its value), or None."""
    before = None
    for key, value in default.items():
        if key not in data:
            return (*at, key), before, value
        if isinstance(value, dict) and value and isinstance(data[key], dict):
            below = _first_missing(data[key], value, (*at, key))
            if below is not None:
                return below
        before = key
    return None


def _end_of(lines: list[str], path: tuple[str, ...]) -> int:
    """The line behind all that belongs to a key."""
    at = 0
    for depth, key in enumerate(path):
        while not lines[at].startswith(f"{'  ' * depth}{key}:"):
            at += 1
        at += 1
    indent = len(path) * 2
    while at < len(lines) and (not lines[at].strip() or len(lines[at]) - len(lines[at].lstrip()) >= indent):
        at += 1
    return at


def main() -> None:
    """Writes what is missing, or with nothing to write says so."""
    for name, config in PIPELINES.items():
        path = CONF / f"{name}.yaml"
        text = path.read_text()
        new = completed(text, json.loads(config().model_dump_json()))
        if new != text:
            print(f"{path.name}: {len(new.splitlines()) - len(text.splitlines())} keys added")
            if "--write" in sys.argv:
                path.write_text(new)


if __name__ == "__main__":
    main()
