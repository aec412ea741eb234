"""Identifiers by their names in a recipe, loaded once a process."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gristmill.filters import lid
from gristmill.filters.identify.base import Identifier
from gristmill.filters.identify.fast_text import as_labelled, glot_lid
from gristmill.filters.identify.packages import Cld2, Eldc, Heliport

Name = Literal["lid.176", "glotlid", "cld2", "eldc", "heliport"]
MODELS = frozenset({"lid.176", "glotlid"})
"""Those that are a file of fastText's, named by `model_path`."""


class _Package(NamedTuple):
    """An identifier that is installed, or not: distribution, what it is imported as, what takes the module."""

    distribution: str
    module: str
    identifier: Callable[[Any], Identifier]


_PACKAGES = {
    "cld2": _Package("pycld2", "pycld2", Cld2),
    "eldc": _Package("eldc", "eldc", Eldc),
    "heliport": _Package("heliport", "heliport", Heliport),
}


def model_file(name: Name, path: str | None) -> Path:
    """The file of an identifier in `MODELS`. Raises FileNotFoundError, and ValueError where none can be."""
    if name == "lid.176":
        return lid.find_model(path)
    if name != "glotlid":
        raise ValueError(f"{name} has its model within its package, and no file")
    if path is None:
        raise ValueError(
            "glotlid needs its file: give its path as model_path (cis-lmu/glotlid on the Hugging Face hub has it as"
            " model.bin, 1.7 GB)"
        )
    return lid.find_model(path)


def identifier(name: Name, path: str | None) -> Identifier:
    """The identifier of this name, with its model in the file `path`, if it is one of `MODELS`.

    Raises ValueError for what is no name, a file that is no model or none that is needed; FileNotFoundError;
    RuntimeError for a package that is not installed, or does not load.
    """
    if name in MODELS:
        file = model_file(name, path)
        return as_labelled(file) if name == "lid.176" else glot_lid(file)
    return _packaged(_package(name))


def version(name: Name) -> str:
    """Of the package of an identifier; empty for one that is a file, whose bytes say all. Raises as `identifier`."""
    return "" if name in MODELS else _version(_package(name))


def _package(name: str) -> _Package:
    if name not in _PACKAGES:
        raise ValueError(f"language.identifier is {name!r}; allowed are {', '.join(sorted(MODELS | set(_PACKAGES)))}")
    return _PACKAGES[name]


def _version(package: _Package) -> str:
    try:
        return importlib.metadata.version(package.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise _absent(package, error) from error


@lru_cache(maxsize=len(_PACKAGES))
def _packaged(package: _Package) -> Identifier:
    try:
        return package.identifier(importlib.import_module(package.module))
    except ImportError as error:
        raise _absent(package, error) from error


def _absent(package: _Package, error: Exception) -> RuntimeError:
    install = f"pip install {package.distribution}"
    return RuntimeError(f"the package {package.distribution} is not installed here ({error}); {install}")
