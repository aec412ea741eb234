"""`python -m gristmill.orchestration.kernels`: compiles, once a machine, what every run of web would compile.

A kernel takes seconds to compile and is then read from a cache (`filters.signatures.compiled`); without this the first
run pays, and each of its workers beside the others.
"""

from __future__ import annotations

from gristmill.filters.extraction import extractor
from gristmill.filters.fast_text import model
from gristmill.filters.pages import shown
from gristmill.filters.signatures import minhash
from gristmill.stages.clusters import settle
from gristmill.stages.near import union_find


def warm() -> None:
    """Compiles those that are not in the cache."""
    extractor.warm()
    model.warm()
    shown.warm()
    minhash.warm()
    union_find.kernels()
    settle.kernels()


if __name__ == "__main__":
    warm()
