"""Gates between nodes: a version that differs too much from the one before it holds back what would be made of it.

It is committed, and can be looked at; nothing is made of it until somebody accepts it (`accept` of its node) or another
version takes its place. Asked is of datasets of records with texts: what is made of those follows from them.
"""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.gates.held import Gates
from gristmill.pipelines.gates.passing import held, note_passed


def held_back(store: Store, manifests: Sequence[Manifest], gates: Gates | None, accepted: Sequence[str]) -> str:
    """Why nothing may be made of these versions yet, a line each; empty where it may. `gates` None: always. Writes
    nothing."""
    if gates is None:
        return ""
    versions = Versions(store)
    asked = [manifest for manifest in manifests if _is_judged(manifest)]
    reasons = [f"{manifest}: {why}" for manifest in asked for why in held(versions, manifest, gates, accepted)]
    return "\n".join(reasons)


def note_all_passed(store: Store, manifests: Sequence[Manifest], gates: Gates | None, accepted: Sequence[str]) -> None:
    """Writes down that nothing holds these versions back."""
    if gates is not None:
        for manifest in manifests:
            if _is_judged(manifest):
                note_passed(Versions(store), manifest, gates, accepted)


def _is_judged(manifest: Manifest) -> bool:
    return manifest.layout.shown == "texts"
