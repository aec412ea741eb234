"""`node:NAME`: the version that a node makes, in a recipe that has to name exact ones.

`node:chains.pairs` is what the node `chains` makes under the name of its dataset with `.pairs`; without that it is the
last that it makes. `node:a2/audio_projector_speech` is a part of a model, as in `init_from`. A reference is the whole
of a value, or of a key. Once the node is done it becomes `dataset@vN`, before anything hashes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from gristmill.pipelines.settings.config import BadConfig

PREFIX = "node:"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_REF = re.compile(rf"{PREFIX}({NAME.pattern})((?:\.[a-z0-9_-]+)*)((?:/[a-z_]+)?)")
_PATH = re.compile(r"\$\{([^{}]*)\}")


class Ref(NamedTuple):
    """A version that `node` makes: the one whose dataset has `link` behind the node's own; empty: the last one."""

    node: str
    link: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.node}{self.link}"


def references(recipe: Any, at: str = "recipe") -> Iterator[tuple[str, Ref]]:
    """(key, reference) of each in the keys and values of a recipe. Raises BadConfig for a text that begins like one."""
    if isinstance(recipe, Mapping):
        for key, value in recipe.items():
            if isinstance(key, str) and (ref := _ref(key, at)) is not None:
                yield at, ref[0]
            yield from references(value, f"{at}.{key}")
    elif isinstance(recipe, list | tuple):
        for number, value in enumerate(recipe):
            yield from references(value, f"{at}.{number}")
    elif isinstance(recipe, str) and (ref := _ref(recipe, at)) is not None:
        yield at, ref[0]


def replaced(recipe: Any, versions: Callable[[Ref], str]) -> Any:
    """The recipe with every reference as `versions` says it."""

    def exact(text: str) -> str:
        ref = _ref(text, "recipe")
        return text if ref is None else f"{versions(ref[0])}{ref[1]}"

    return mapped(recipe, exact)


def _ref(text: str, at: str) -> tuple[Ref, str] | None:
    """(reference, the part behind it); None for a text that is none."""
    if not text.startswith(PREFIX):
        return None
    match = _REF.fullmatch(text)
    if match is None:
        raise BadConfig(f"{at}: {text!r}: expected node:NAME, node:NAME.LINK, or either with /PART behind it")
    return Ref(match[1], match[2]), match[3]


def with_paths(value: Any, paths: Mapping[str, str], at: str) -> Any:
    """The value with `${name}` as `paths` says it. Raises BadConfig for a name that is not there."""

    def path(match: re.Match[str]) -> str:
        if match[1] not in paths:
            there = ", ".join(paths) or "none"
            raise BadConfig(f"{at}: ${{{match[1]}}}: there is no such key in paths; there are {there}")
        return paths[match[1]]

    return mapped(value, lambda text: _PATH.sub(path, text))


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same sections and lists, with each text changed, keys too."""
    if isinstance(value, Mapping):
        return {change(key) if isinstance(key, str) else key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mapped(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
