"""Whether objects are there: asked by size before a commit names them, and before a run relies on those of a version.

By size, as hashing would read everything that a resumed run skips: damage is found where the bytes are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef


class MissingObjects(FileNotFoundError):
    """Objects of a draft are not in the store (gc took them, or a person did): their work is to be done again."""


def missing(store: Store, refs: Iterable[ObjectRef]) -> list[str]:
    """One line for every object that is not there or has another size."""

    def fault(ref: ObjectRef) -> str | None:
        info = store.info(ref.key)
        if info is None:
            return f"{ref.kind} {ref.sha256[:12]} is missing"
        wrong = info.size != ref.bytes
        return f"{ref.kind} {ref.sha256[:12]} has {info.size} bytes, not {ref.bytes}" if wrong else None

    different = {ref.sha256: ref for ref in refs}
    with ThreadPoolExecutor(8) as pool:
        return [text for text in pool.map(fault, different.values()) if text]
