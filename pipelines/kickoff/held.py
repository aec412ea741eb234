"""Gates between nodes: a version that differs too much from the one before it holds back what would be made of it.

It is committed, and can be looked at; nothing is made of it until somebody accepts it (`accept` of its node) or another
version takes its place. Asked is of datasets of records with texts: what is made of those follows from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.gates.held import Gates
from gristmill.pipelines.gates.passing import Judgement, judge, note_passed


def held_back(store: Store, manifests: Sequence[Manifest], gates: Gates | None, accepted: Sequence[str]) -> str:
    """Why nothing may be made of these versions yet, a line each; empty where it may. `gates` None: always. Writes
    nothing."""
    return _in_words(_judged(Versions(store), manifests, gates, accepted))


def hold_back(store: Store, manifests: Sequence[Manifest], gates: Gates | None, accepted: Sequence[str]) -> str:
    """`held_back`, and writes down what passed."""
    versions = Versions(store)
    judged = _judged(versions, manifests, gates, accepted)
    for judgement in judged.values():
        if gates is not None and judgement.passed is not None:
            note_passed(versions, judgement.passed, gates, accepted)
    return _in_words(judged)


def _judged(
    versions: Versions, manifests: Sequence[Manifest], gates: Gates | None, accepted: Sequence[str]
) -> dict[str, Judgement]:
    """Version -> what became of it, of those that are judged."""
    if gates is None:
        return {}
    asked = [manifest for manifest in manifests if manifest.layout.shown == "texts"]
    return {str(manifest): judge(versions, manifest, gates, accepted) for manifest in asked}


def _in_words(judged: Mapping[str, Judgement]) -> str:
    return "\n".join(f"{version}: {why}" for version, judgement in judged.items() for why in judgement.reasons)
