"""Gates between nodes: a version that differs too much from the one before it holds back what would be made of it.

It is committed, and can be looked at; nothing is made of it until somebody accepts it (`accept` of its node) or another
version takes its place. The same versions give the same answer whenever they are asked, so nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions


def held_back(store: Store, made: Sequence[Manifest], accepted: Sequence[str]) -> str:
    """Why nothing may be made of these versions yet, a line each; empty where it may."""
    lines = []
    for manifest in made:
        if str(manifest) not in accepted:
            lines += [f"{manifest}: {why}" for why in _gates(manifest, _before(store, manifest))]
    return "\n".join(lines)


def _gates(manifest: Manifest, last: Manifest | None) -> list[str]:
    return []


def _before(store: Store, manifest: Manifest) -> Manifest | None:
    """The version before this one that is given out; None for a first one."""
    versions = Versions(store)
    gone = versions.withdrawn(manifest.dataset)
    earlier = [
        number for number in versions.numbers(manifest.dataset) if number < manifest.version and number not in gone
    ]
    return versions.manifest(manifest.dataset, max(earlier)) if earlier else None
