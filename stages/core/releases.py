"""Packages of others by whose release a result is what it is: an identity names them, as it names a model by its bytes.

Named are those that judge: how a page's text is told from the rest, where a word ends, what a damaged picture looks
like. What a standard settles (a coding, a hash) is not, nor what only computes.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from functools import lru_cache

from gristmill.lake.accounts.receipt import StageId


def release_ids(distributions: Iterable[str]) -> tuple[StageId, ...]:
    """One part of an identity for each of these distributions, by name. Raises PackageNotFoundError."""
    return tuple(
        StageId(name=name, version=1, config={"release": installed_release(name)})
        for name in sorted(set(distributions))
    )


@lru_cache(maxsize=64)
def installed_release(distribution: str) -> str:
    """Of the package that is installed, looked up once a process. Raises PackageNotFoundError."""
    return importlib.metadata.version(distribution)
