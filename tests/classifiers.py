"""A classifier that any test can afford: texts about bread against texts that sell, and a model that tells them."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from gristmill.filters.classify.learn import FastText
from gristmill.filters.classify.windows import Windows

_WORDS = {
    "positive": "the baker kneads a dough of flour and water and lets it rest until morning while the oven is warm",
    "negative": "buy now cheap offer click here free shipping sale discount deal order today best price win bonus",
}

LABELS = tuple(_WORDS)


def texts(label: str, count: int, seed: int = 0) -> list[str]:
    """Texts of one label, of 30 to 300 words; none comes twice."""
    rng = random.Random(f"{label} {seed}")
    words = _WORDS[label].split()
    return [f"{' '.join(rng.choices(words, k=rng.randint(30, 300)))} {seed}." for _ in range(count)]


def lines_file(path: Path, written: Sequence[str], **fields: object) -> Path:
    """JSON lines with these texts."""
    path.write_text("".join(json.dumps({"text": text, **fields}) + "\n" for text in written), encoding="utf-8")
    return path


@lru_cache(maxsize=1)
def model_bytes() -> bytes:
    """A trained model's file."""
    lines = [(label, line) for label in _WORDS for text in texts(label, 40) for line in Windows().lines(text)]
    random.Random(0).shuffle(lines)
    return FastText(epochs=20).train(lines).data


@lru_cache(maxsize=1)
def model_path() -> str:
    """Where that model lies, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix="classifier-"))
    path = folder / f"{hashlib.sha256(model_bytes()).hexdigest()[:12]}.bin"
    path.write_bytes(model_bytes())
    return str(path)
