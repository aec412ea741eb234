"""Finds and loads fastText's language model (lid.176), once a process.

Order: a path in the config, the environment (GRIST_LID_MODEL), the copy that is part of this package. Where the file
lies does not matter for results, its bytes do: `digest` is what belongs to the identity of a stage. A path that is
named and missing is an error, never a reason to look further.
Source: https://fasttext.cc/docs/en/language-identification.html (Joulin et al. 2016, arXiv 1607.01759).
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from gristmill.filters.fast_text.file import read_file
from gristmill.filters.fast_text.model import FastTextModel

SHIPPED = Path(__file__).parent / "data" / "lid.176.ftz"
"""CC BY-SA 3.0, see LICENSE-lid.176.md beside it."""
SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
ENVIRONMENT = "GRIST_LID_MODEL"


def find_model(path: str | None = None) -> Path:
    """The model file. Raises FileNotFoundError if the one that is named is absent."""
    for named_by, named in (("the config", path), (ENVIRONMENT, os.environ.get(ENVIRONMENT))):
        if named:
            if not Path(named).is_file():
                raise FileNotFoundError(
                    f"language model {named!r}, named by {named_by}, is not a file; "
                    "correct the path, or leave it out to use the lid.176.ftz that comes with gristmill"
                )
            return Path(named).resolve()
    return SHIPPED


@lru_cache(maxsize=4)
def digest(path: Path) -> str:
    """sha256 of the model file, hex. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=2)
def load_model(path: Path) -> FastTextModel:
    """The model in a file, loaded once a process. Raises OSError, ValueError for a file that is none."""
    return FastTextModel.of(read_file(path))
