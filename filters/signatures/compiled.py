"""Compiled kernels (those of `filters/signatures/kernels.py`, and whoever else has such a file), found again by their
content.

Numba's own cache goes by the path of the source, and a Ray job runs from a new copy of the repository each time: each
job would compile anew, for seconds, in every worker. So the source is copied once to a folder of the user's cache that
is named by a digest of it, of the versions and of the processor, and imported from there, where numba's own cache
serves every copy. If that folder cannot be used, the kernels are compiled for this process alone, with a warning.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import sys
import uuid
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

SOURCE = Path(__file__).with_name("kernels.py")
log = logging.getLogger(__name__)


class Kernels(NamedTuple):
    """Numba dispatchers of one signature each, which release the GIL. What they do: `filters/signatures/kernels.py`."""

    sign: Callable[..., None]
    band_hashes: Callable[..., None]


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The kernels of this process, loaded or compiled at the first call."""
    return Kernels(**load(SOURCE, Kernels._fields))


def load(
    path: Path, names: Collection[str] | None = None, uses: Collection[Path] = ()
) -> dict[str, Callable[..., Any]]:
    """Compiles the functions that a source file's `SIGNATURES` name (name -> numba signature), or finds them compiled;
    with what else numba.njit is to be told by its `OPTIONS`, where it has such (name -> value).
    `names`: only these, since each takes seconds; None: all. `uses`: the files of ours that the file imports, with all
    that they import: they are compiled into it, so that their bytes count like its own.

    The file runs from a copy, as the module `gristmill_` + its stem, which has to be its own. Whatever else it needs
    comes in as arguments. The caller keeps the result: each call loads anew.
    """
    source = path.read_bytes()
    used = [other.read_bytes() for other in sorted(uses)]
    try:
        return _compiled(_imported(_published(cache_folder(), path.name, source, used)), names, cache=True)
    except Exception as error:  # whatever a cache can do (not writable, full, damaged); a fault of ours raises again
        log.warning(
            "gristmill's compiled kernels cannot be kept in %s (%s: %s), so this process compiles them for itself, for "
            "seconds; set GRIST_CACHE to a folder that can be written, or delete this one if it is damaged",
            _path_of(cache_folder),
            type(error).__name__,
            error,
        )
    return _compiled(_imported(path), names, cache=False)


def cache_folder() -> Path:
    """$GRIST_CACHE, else gristmill's folder in $XDG_CACHE_HOME or ~/.cache. Raises RuntimeError without a home."""
    if own := os.environ.get("GRIST_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "gristmill"


def _published(folder: Path, name: str, source: bytes, used: Collection[bytes] = ()) -> Path:
    """The path of this source in the cache, where it is put in one step if it is not there."""
    path = folder / "kernels" / _digest(source, used) / name
    if path.is_file() and path.read_bytes() == source:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_bytes(source)  # with the mode of any new file: a cache may serve several users
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return path


def _digest(source: bytes, used: Collection[bytes] = ()) -> str:
    """Names all that decides the machine code, so that a folder never has to hold two forms of a function."""
    import llvmlite.binding
    import numba
    import numpy

    parts = (
        source.hex(),
        *(other.hex() for other in used),
        sys.implementation.cache_tag,
        platform.machine(),
        numba.__version__,
        numpy.__version__,
        numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name(),
        numba.config.CPU_FEATURES or llvmlite.binding.get_host_cpu_features().flatten(),
    )
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gristmill_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # numba looks a function's module up by name when it loads it
    spec.loader.exec_module(module)
    return module


def _compiled(module: ModuleType, names: Collection[str] | None, cache: bool) -> dict[str, Callable[..., Any]]:
    import numba

    signatures: dict[str, Any] = module.SIGNATURES
    options: dict[str, Any] = getattr(module, "OPTIONS", {})
    return {
        name: numba.njit(signature, nogil=True, cache=cache, **options)(getattr(module, name))
        for name, signature in signatures.items()
        if names is None or name in names
    }


def _path_of(folder: Callable[[], Path]) -> str:
    """The folder as a message names it, also where a user without a home has none."""
    try:
        return str(folder())
    except RuntimeError:
        return "a user's cache"
