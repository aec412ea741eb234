"""What a shell completes: names of datasets and their versions, and the configurations that come along.

Asked at every press of the tab key: the lake's listing of names is read, and no manifest; nothing is imported that
takes time. A lake that is not there or cannot be read completes nothing: a prompt is no place for its message.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from typer import _completion_shared as of_typer

from gristmill.orchestration.show.terminal import exit_code

if TYPE_CHECKING:
    from gristmill.lake.store.base import Store


_WHOLE_REFERENCES = "\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//@/}\n"
"""For bash, which else takes the `@` of `web@v3` for the end of a word, and asks for the next one; npm's completion has
the same line."""


def with_whole_references() -> None:
    """Has typer's script for bash say so: called before the command runs."""
    script = of_typer._completion_scripts["bash"]
    if not script.endswith(_WHOLE_REFERENCES):
        of_typer._completion_scripts["bash"] = script + _WHOLE_REFERENCES


def complete_dataset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of datasets that begin so."""
    return _beginning(ctx, incomplete, _datasets)


def complete_version(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of datasets; behind an `@` the versions of the one, the newest first, and its tags."""
    name, at, _ = incomplete.partition("@")
    return _beginning(ctx, incomplete, partial(_versions, name=name) if at else _datasets)


def complete_config(incomplete: str) -> list[str]:
    """Names of configurations that come with gristmill. Files the shell completes itself."""
    from gristmill.pipelines.settings.shipped import configurations

    return [name for name in configurations() if name.startswith(incomplete)]


def _beginning(ctx: typer.Context, incomplete: str, names: Callable[[Store], Iterable[str]]) -> list[str]:
    """Those of the lake's names that begin so; none where the lake cannot say."""
    from gristmill.lake.store.opening import open_store

    given = ctx.params.get("lake") or os.environ.get("GRIST_LAKE")
    if not given:
        return []
    try:
        store = open_store(given if "://" in given else str(Path(given).absolute()), probe=False)
        return [name for name in names(store) if name.startswith(incomplete)]
    except Exception as error:
        if exit_code(error) is None:
            raise
        return []


def _datasets(store: Store) -> list[str]:
    return sorted({info.key.split("/")[1] for info in store.list("datasets/") if "/versions/" in info.key})


def _versions(store: Store, name: str) -> Iterator[str]:
    if not name:
        return
    numbers = [stem for stem in _stems(store, f"datasets/{name}/versions/") if stem.isdigit()]
    yield from (f"{name}@v{int(number)}" for number in reversed(numbers))
    yield from (f"{name}@{tag}" for tag in _stems(store, f"datasets/{name}/tags/"))


def _stems(store: Store, prefix: str) -> list[str]:
    return [info.key.removeprefix(prefix).removesuffix(".json") for info in store.list(prefix)]
