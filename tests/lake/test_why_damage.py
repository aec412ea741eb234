"""What `why` cannot read is said, and the rest is answered: never less than there is without a word."""

from __future__ import annotations

import pytest
from forget_lake import docs, two_nights

from gristmill.lake.query.why import Answer, why
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import object_key
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.roots import slot_key
from gristmill.lake.versions.versions import Versions


@pytest.fixture
def web(store: Store) -> list[Manifest]:
    return two_nights(store)


def asked(store: Store, record: str) -> tuple[Answer, list[str]]:
    warnings: list[str] = []
    return why(Versions(store, warn=warnings.append), record), warnings


def clustered(store: Store, web: list[Manifest]) -> tuple[str, str]:
    """(a record with a cluster in the newest version, the key of the object that says so)."""
    for ref in web[-1].attachments:
        for doc in docs("d1", "d2", "b", "h") if ref.kind == "clusters" else ():
            answer, warnings = asked(store, doc.id)
            assert warnings == []
            if any(story.cluster is not None for story in answer.stories) and ref.overlaps(doc.id, doc.id + "g"):
                return doc.id, object_key(ref.sha256)
    raise AssertionError("no record of this lake has a cluster")


@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_a_cluster_that_cannot_be_read_is_named(store: Store, web: list[Manifest], damage: str) -> None:
    record, key = clustered(store, web)
    if damage == "deleted":
        store.delete(key)
    else:
        store.put(key, bytes(len(store.get(key))))
    answer, warnings = asked(store, record)
    assert answer.stories and key in " ".join(warnings) and "another lake" in " ".join(warnings)


def test_of_a_withdrawn_version_whose_objects_gc_took_nothing_is_said(store: Store, web: list[Manifest]) -> None:
    record, key = clustered(store, web)
    for manifest in web:
        Versions(store).withdraw(manifest.dataset, manifest.version, "a takedown")
    store.delete(key)
    assert asked(store, record)[1] == []


def test_a_version_that_is_gone_is_named(store: Store, web: list[Manifest]) -> None:
    store.delete(slot_key("web", 1))
    answer, warnings = asked(store, docs("b")[0].id)
    assert answer.stories and answer.unreadable == ("web@v1",)
    assert warnings == [
        "web@v1 is missing though later versions exist: a version is never deleted;"
        " restore the file from a backup or a replica of the lake"
    ]


def test_a_lost_object_is_named_with_what_to_do() -> None:
    assert "run the command that made it" in str(NotFound("/lake", object_key("ab" * 32)))
    assert str(NotFound("/lake", "runs/x")) == "no object 'runs/x' in /lake"
