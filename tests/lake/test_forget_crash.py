"""Takedown beside crashes and other writers: the same command ends where an undisturbed one does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from forget_lake import (
    FIRST,
    SECOND,
    URLS,
    Doc,
    do,
    docs,
    files,
    gone_from,
    ids_of,
    increment,
    made_from,
    sound,
    two_nights,
)
from killed import Killed, Killing, state, steps
from tar_lake import pictures

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import plan_forget
from gristmill.lake.takedown.search import Search
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import CommitConflict, Versions


@pytest.fixture
def web(store) -> list[Manifest]:
    return two_nights(store)


# crashes and company


def lake_of(tmp_path: Path, name: str) -> Store:
    """A copy of one lake: two increments of `web`, a dataset that holds a text of them, tars of images of their pages,
    and windows that do not say what they hold."""
    if not (tmp_path / "lake").exists():
        store = open_store(str(tmp_path / "lake"))
        first = increment(store, "web", docs("a", "b", "c"), file="a")
        second = increment(store, "web", docs("g", "h"), first, file="b")
        increment(store, "mix", docs("b", "q"), file="mix", sources=(second.ref,))
        made_from(store, "packs", second, "pack")
        pictures(store, [["a"], ["b"]], [["h"]])
    shutil.copytree(tmp_path / "lake", tmp_path / name)
    return open_store(str(tmp_path / name), probe=False)


def test_killed_at_any_step_the_same_command_ends_where_an_undisturbed_one_does(tmp_path):
    calm = lake_of(tmp_path, "calm")
    written = steps(calm, lambda store: do(store, URLS))
    assert written[0].startswith("suppressions/")  # before anything else
    withdrawn = [key for key in written if "/withdrawn/" in key]
    assert written[-len(withdrawn) :] == withdrawn and "packs" in withdrawn[0]
    objects = [n for n, key in enumerate(written) if key.startswith("objects/")]
    # one object not written is like another; to die after a write is to die before the next
    moments = [(n, False) for n in range(len(written)) if n not in objects[1:-1]] + [(len(written) - 1, True)]
    for n, late in moments:
        store = lake_of(tmp_path, f"{n}-{late}")
        with pytest.raises(Killed):
            do(Killing(store, n, [], late), URLS)
        assert verify(store) == []
        report = do(store, URLS)
        assert state(store) == state(calm), (written[n], late)
        assert report.plan.nothing == late
    sound(calm)


def test_the_same_command_again_changes_nothing(store, web):
    do(store, URLS)
    before = files(store)
    report = do(store, URLS)
    assert report.made == () == report.withdrawn and files(store) == before


def meanwhile(store: Store, when: Callable[[str, str], bool], act: Callable[[], Any]) -> toy.Watched:
    """A store where somebody else acts once, just before one of our steps."""
    done: list[bool] = []

    def before(verb: str, key: str) -> None:
        if not done and when(verb, key):
            done.append(True)
            act()

    return toy.Watched(store, before)


OTHER = Suppression.of(urls=["https://example.org/a"])
MOMENTS = {
    "list": lambda verb, key: verb == "create" and key.startswith("suppressions/"),
    "commit": lambda verb, key: verb == "create" and "/versions/" in key,
    "withdraw": lambda verb, key: verb == "create" and "/withdrawn/" in key,
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("other_request", [OTHER, URLS], ids=["other", "same"])
def test_two_at_once_both_count(store, web, moment, other_request):
    do(meanwhile(store, MOMENTS[moment], lambda: do(store, other_request)), URLS)
    gone_from(store, *docs("b", "h"), *(docs("a") if other_request is OTHER else []))
    versions = Versions(store)
    assert Suppression.load(store) == URLS.union([other_request])
    assert versions.latest("web") == max(versions.numbers("web")) == (4 if other_request is OTHER else 3)
    sound(store)


def test_a_night_that_commits_first_is_cleaned_as_well(store, web):
    other = [*docs("z", "h2"), Doc("https://evil.com/late")]
    request = Suppression.of(domains=["evil.com"])
    for moment in ("commit", "withdraw"):
        Versions(store)

        def grow(moment: str = moment) -> None:
            base = Versions(store).resolve("web")
            increment(store, "web", [Doc(d.url + moment) for d in other], base, file=moment)

        do(meanwhile(store, MOMENTS[moment], grow), request)
        gone_from(store, *(Doc(d.url + moment) for d in other if "evil" in d.url), *FIRST[-2:], SECOND[-1])
        assert docs(f"z{moment}")[0].id in ids_of(store, Versions(store).resolve("web"))
        increment(
            store, "web", [Doc(f"https://evil.com/again-{moment}")], Versions(store).resolve("web"), file=f"2{moment}"
        )
    do(store, request)
    sound(store)


def test_others_that_never_let_it_commit_are_named(store, web, monkeypatch):
    monkeypatch.setattr("gristmill.lake.takedown.forget.ROUNDS", 3)
    count = iter(range(1000))

    def before(verb: str, key: str) -> None:
        if verb == "create" and "web/versions/" in key:
            increment(
                store, "web", docs(f"n{next(count)}"), Versions(store).resolve("web"), file=key + str(next(count))
            )

    with pytest.raises(CommitConflict, match="other runs committed first 3 times"):
        do(toy.Watched(store, before), URLS)
    assert Suppression.load(store) == URLS


def test_an_object_that_is_lost_is_an_error_and_not_an_empty_answer(store, web):
    store.delete(web[1].shards[0].key)
    with pytest.raises(KeyError, match=web[1].shards[0].sha256[:12]):
        plan_forget(Versions(store), URLS)
    with pytest.raises(ValueError, match="no entries"):
        plan_forget(Versions(store), Suppression())


def test_a_look_again_reads_only_what_is_new(store, web):
    opened: list[str] = []

    class Counting(Killing):
        def __getattr__(self, name: str) -> Any:
            if name == "open":
                return lambda key: (opened.append(key), self.store.open(key))[1]
            return getattr(self.store, name)

    search = Search(Versions(Counting(store, -1, [])), URLS)
    search.look()
    assert opened
    opened.clear()
    search.look()
    assert opened == []
