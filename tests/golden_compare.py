"""What differs between stages of golden/stages.json and those of now, in one line, with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from golden_outputs import FILE

WRITE = "python tests/test_golden.py --write"


def compare(golden: dict[str, Any], observed: dict[str, Any]) -> str | None:
    """What is wrong, or None. Only the first stage that differs is named: what follows it follows from it."""
    if golden["inputs"] != observed["inputs"]:
        return f"tests/golden/input is not what it was when stages.json was written: restore it, or delete {FILE.name}"
    for title, now in observed["stages"].items():
        then = golden["stages"].get(title)
        if then is None:
            return f"stage {title!r} is new: run `{WRITE}` and commit the file"
        raised = _identities(then, now)
        if raised:
            return f"stage {title!r} is not the one of stages.json ({raised}): if that is meant, run `{WRITE}`"
        changed = list(_changes(then, now, ""))
        if changed:
            return _unversioned(title, now, changed)
    gone = golden["stages"].keys() - observed["stages"].keys()
    return f"stage {', '.join(sorted(gone))} did not run: if that is meant, run `{WRITE}`" if gone else None


def _unversioned(title: str, now: dict[str, Any], changed: Sequence[str]) -> str:
    versions = ", ".join(f"{part['name']} {part['version']}" for part in now["identity"])
    return (
        f"stage {title!r} gives another output ({', '.join(changed[:6])}) under the same VERSION ({versions}): receipts"
        f" of lakes that exist would pass for work of this code. Raise the VERSION of what changed, and run `{WRITE}`"
    )


def _identities(then: dict[str, Any], now: dict[str, Any]) -> str:
    before, after = ({part["name"]: part for part in at["identity"]} for at in (then, now))
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    shown = [f"{name}: {_version(before.get(name))} -> {_version(after.get(name))}" for name in names]
    return "; ".join(shown) or ("another order" if then["identity"] != now["identity"] else "")


def _version(part: dict[str, Any] | None) -> str:
    return "none" if part is None else f"VERSION {part['version']} {json.dumps(part['config'])}"


def _changes(then: Any, now: Any, path: str) -> Iterable[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            yield from _changes(then.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif then != now:
        yield path.removeprefix("outputs.")
