"""YAML from outside, read within bounds: how long, how deep, and how much its aliases unfold to.

An alias costs one line and repeats all that it names: nine lines of nine make a billion values. The events of the text
are counted first, each alias as what it stands for, without building any of it; only then are values made. Every
mistake is one line, whichever of the library's many exceptions it was.
Source: "billion laughs"; PyYAML's events (yaml.parse), which come one at a time and need no recursion.
"""

from __future__ import annotations

import copy
from typing import Any

import yaml

MAX_CHARACTERS, MAX_VALUES, MAX_DEPTH = 1 << 20, 100_000, 50
"""Characters of a text, values that it stands for, sections and lists within each other."""


class BadYaml(ValueError):
    """A text that is no YAML, or more of it than is allowed; the message is one line."""


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in one section: the library would take the last, and drop the other unsaid. What
    `<<` merges in may repeat a key, which then is the section's own."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                problem = f"the key {key.value!r} stands twice in one section"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def read_yaml(text: str) -> Any:
    """The value of a YAML text; nothing in it is shared, so that a change in one place is a change in one place.

    Raises BadYaml.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadYaml(f"too long: more than {MAX_CHARACTERS:,} characters")
    try:
        _check_size(text)
        value = yaml.load(text, _UniqueKeys)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadYaml(f"not valid YAML: {error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise BadYaml(f"not valid YAML: {str(error).splitlines()[0]}") from None
    except BadYaml:  # of _check_size: a message already, and a ValueError as those below
        raise
    # The library hands on what its constructors meet: a month of 13, `!!int x`, a number of 5,000 digits.
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise BadYaml(f"not valid YAML: {str(error) or type(error).__name__}") from None
    return unshared(value)


def unshared(value: Any) -> Any:
    """A copy in which no section or list stands in two places."""
    if isinstance(value, dict):
        return {key: unshared(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [unshared(item) for item in value]
    return copy.copy(value)


def _check_size(text: str) -> None:
    """Raises BadYaml for what unfolds to too much, leads back to itself, or is nested too deeply."""
    sizes: dict[str, int] = {}  # values that an anchor stands for
    begun: list[tuple[str | None, int]] = []  # the anchor of each open section or list, and the values before it
    total = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in begun):
                raise BadYaml(f"not valid YAML here: the alias *{event.anchor} leads back to itself")
            total += sizes.get(str(event.anchor), 1)  # one that was never anchored is the library's to refuse
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if total > MAX_VALUES:
            raise BadYaml(f"too large: it stands for more than {MAX_VALUES:,} values, with its aliases unfolded")
        if len(begun) > MAX_DEPTH:
            raise BadYaml(f"too deep: sections or lists within each other, more than {MAX_DEPTH}")
