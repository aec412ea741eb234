"""Folded lists: a manifest of a dataset that grows every day must not name ten thousand shards in full.

Whole blocks of BLOCK pointers are replaced by a pointer to an object that lists them, and whole blocks of such pointers
again. What stands in a manifest grows with the logarithm of the list. A version that adds to the end of its parent's
list shares all of the parent's whole blocks: all manifests and lists of a dataset together grow as the data does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, read_refs

KIND = "list"
BLOCK = 32
_REMEMBERED = 4096
"""Lists that a reader keeps: consecutive versions share nearly all of theirs."""


def fold(store: Store, refs: Sequence[ObjectRef]) -> tuple[ObjectRef, ...]:
    """The pointers that stand in a manifest in place of these, fewer than BLOCK a level; writes the lists.

    Blocks are cut from the beginning, so that a list that only grew at its end has the same ones, byte by byte, and
    they are stored once.
    """
    whole = len(refs) // BLOCK * BLOCK
    if not whole:
        return tuple(refs)
    blocks = [refs[start : start + BLOCK] for start in range(0, whole, BLOCK)]
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda block: put_refs(store, block, kind=KIND), blocks))
    return (*fold(store, lists), *refs[whole:])


class Unfolder:
    """Reads folded lists; what it read it remembers, for the versions to come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[ObjectRef, ...]] = OrderedDict()
        self._lock = Lock()

    def unfold(self, refs: Iterable[ObjectRef]) -> tuple[ObjectRef, ...]:
        """The pointers, lists replaced by what they list. Raises NotFound, DamagedObject."""
        return tuple(self._walk(refs, lists=False))

    def lists(self, refs: Iterable[ObjectRef]) -> tuple[ObjectRef, ...]:
        """The pointers to lists among these and in them."""
        return tuple(self._walk(refs, lists=True))

    def _walk(self, refs: Iterable[ObjectRef], *, lists: bool) -> Iterator[ObjectRef]:
        """The lists, or what is no list, in order, through all levels."""
        for ref in refs:
            if (ref.kind == KIND) == lists:
                yield ref
            if ref.kind == KIND:
                yield from self._walk(self._read(ref), lists=lists)

    def _read(self, ref: ObjectRef) -> tuple[ObjectRef, ...]:
        with self._lock:
            known = self._known.get(ref.sha256)
        if known is None:
            known = tuple(read_refs(self._store, ref))
            with self._lock:
                self._known[ref.sha256] = known
                # The oldest goes, used or not: versions are read in order, and a list that none shares any more is old.
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return known
