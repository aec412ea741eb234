"""fastText's own library, as a peer of our kernels and what tests hold them against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.filters.classify.learn import REPAIR


def open_model(path: Path) -> Any:
    """A model, as the library loads it. Raises ValueError if the file is none, RuntimeError where the module `fasttext`
    is missing or another package's."""
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
