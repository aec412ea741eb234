"""What is left of a mixture leaves when the records that were taken down are erased, and no sooner."""

from __future__ import annotations

from pathlib import Path

import mixtures
import pytest
from exchanges import version, written
from forget_lake import do, docs, erase, increment

from gristmill.lake.store.base import Store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.stages.exchange.taken import TakenDown

PAGES = docs(*(f"page{number}" for number in range(12)))


def mixed(store: Store) -> Manifest:
    """Windows of the first of two versions, the second of which extends it."""
    first = increment(store, "web", PAGES[:8])
    increment(store, "web", PAGES[8:], first, "b")
    mixtures.tokenizer(store, "web@v1")
    return mixtures.mix(store, {"web@v1": 1}, window=512, max_waste=0.9).manifest


def test_a_mixture_of_an_erased_source_is_asked_about_by_what_took_its_place(store: Store, tmp_path: Path) -> None:
    mixed(store)
    do(store, Suppression.of(urls=[PAGES[0].url]))
    erase(store)
    assert sorted(Versions(store).withdrawn("web")) == [1, 2] and Versions(store).latest("web") == 3
    left = version(store, "mix@v2")
    assert written(store, left, tmp_path / "out", "webdataset").records == left.shards[0].records
    Suppression.of(urls=[PAGES[1].url]).save(store, "asked")  # and broken off there
    with pytest.raises(TakenDown, match=r"mix@v2 holds 1 records"):
        written(store, left, tmp_path / "again", "webdataset")


def test_a_mixture_whose_source_is_erased_without_a_trace_does_not_leave(store: Store, tmp_path: Path) -> None:
    mix = mixed(store)
    for number in (1, 2):
        Versions(store).withdraw("web", number, "wrong source")
    erase(store)
    assert written(store, mix, tmp_path / "out", "webdataset").records  # nothing was asked for
    Suppression.of(domains=["example.org"]).save(store, "asked")
    with pytest.raises(NoSuchVersion, match=r"made from web@v1.*whether it holds what was taken down is not known"):
        written(store, mix, tmp_path / "again", "webdataset")
