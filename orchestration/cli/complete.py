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


_BASH = """
%(complete_func)s() {
    local IFS=$'\\n' piece word
    local -a words=()
    # bash ends a word before and behind the @ of web@v3: put together again, they are one that is asked for whole,
    # and an answer begins behind the @, because that is what bash puts it in place of.
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if (( ${#words[@]} )) && [[ "$piece" == @* || "${words[-1]}" == *@ ]]; then
            words[-1]+="$piece"
        else
            words+=("$piece")
        fi
    done
    word="${words[-1]}"
    COMPREPLY=( $( env COMP_WORDS="${words[*]}" COMP_CWORD=$(( ${#words[@]} - 1 )) \\
                   %(autocomplete_var)s=complete_bash $1 ) )
    if [[ "$word" == *@* && "$COMP_WORDBREAKS" == *@* ]]; then
        COMPREPLY=( "${COMPREPLY[@]#"${word%%"${word##*@}"}"}" )
    fi
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""
_ZSH_ALSO = '\n[ "$funcstack[1]" = "_%(prog_name)s" ] && %(complete_func)s "$@"\n'
"""zsh loads the script at the first press of the key, which then has to answer, too, and not only the second."""


def mend_scripts() -> None:
    """Has `--install-completion` install what typer's scripts lack: called before the command runs."""
    scripts = of_typer._completion_scripts
    scripts["bash"] = _BASH
    if not scripts["zsh"].endswith(_ZSH_ALSO):
        scripts["zsh"] += _ZSH_ALSO


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
