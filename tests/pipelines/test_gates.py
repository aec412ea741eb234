"""What holds a version back: against itself, and against the last one of its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from drafts import draft
from fake_prefect import Events

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import put_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.announce import pass_on
from gristmill.pipelines.gates import passing
from gristmill.pipelines.gates.drift import stability_index, topic_drift
from gristmill.pipelines.gates.held import Gates, held_by_counts
from gristmill.pipelines.gates.passing import note_passed
from gristmill.pipelines.kickoff.held import hold_back

COOKING = ["butter", "flour", "onion", "garlic", "simmer", "oven", "bake", "pepper", "season", "whisk", "stir", "sauce"]
COURTS = ["court", "judge", "appeal", "statute", "verdict", "counsel", "plea", "clause", "ruling", "tort", "evidence"]


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path / "lake"))


def held(versions: Versions, manifest: Manifest, gates: Gates = Gates(), accepted: Sequence[str] = ()) -> list[str]:  # noqa: B008
    """By the usual gates."""
    return passing.held(versions, manifest, gates, accepted)


def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets the versions whose own reasons are looked for, from now on."""
    looked_at: list[str] = []
    against = passing.held_against
    monkeypatch.setattr(
        passing, "held_against", lambda of, each, *more: looked_at.append(str(each)) or against(of, each, *more)
    )
    return looked_at


def texts_of(words: list[str], n: int) -> list[str]:
    """`n` texts of ten of these words each, from another place on."""
    return [" ".join(words[(i + k) % len(words)] for k in range(10)) for i in range(n)]


def counted(**more: Any) -> dict[str, Any]:
    return {"languages": {"en": 900, "de": 100}, "bytes_from": {"200": 500, "1000": 500}, **more}


def commit(
    store: Store,
    texts: list[str],
    *,
    dropped: int = 0,
    quarantined: int = 0,
    statistics: dict[str, Any] | None = None,
    upon: Manifest | None = None,
    role: str = "input",
    form: str = "documents",
    recipe: dict[str, Any] | None = None,
) -> Manifest:
    """A version with these texts kept. `upon`: the version that it extends, whose counts are in its own."""
    base = upon.shards if upon else ()
    key = f"{len(texts)} {dropped} {quarantined} {statistics} {texts[:1]} {upon} {role}"
    rows = pa.table({"id": [f"{i:032x}" for i in range(len(texts))], "text": texts})

    def so_far(name: str, n: int) -> Tally:
        own = Tally(n, n)  # only counts matter here, and that both sides of the balance add up
        return own + getattr(upon, name) if upon else own

    fates = {"kept": len(texts), "dropped": dropped, "quarantined": quarantined}
    fields = {name: so_far(name, n) for name, n in fates.items()}
    fields["received"] = so_far("received", sum(fates.values()))
    fields |= {"statistics": statistics or {}, "form": form, "recipe": recipe or {}}
    if upon:
        fields["parent"] = upon.ref.model_copy(update={"role": role})
    shard = put_table(store, "shard", rows)
    return Versions(store).commit(draft("web", key, [], (*base, shard), **fields))


def test_the_first_version_is_held_only_by_what_it_is(store):
    versions = Versions(store)
    good = commit(store, texts_of(COOKING, 300), dropped=2700, quarantined=30)
    assert held(versions, good) == []
    (nothing,) = held_by_counts(commit(store, [], dropped=50), None, None, Gates())
    assert "web@v2 kept 0 of 50 records (0.0%)" in nothing and "`grist show web@v2`" in nothing
    unreadable = commit(store, texts_of(COOKING, 70), quarantined=30, recipe={"max_quarantine_rate": 0.4})
    assert held_by_counts(unreadable, None, None, Gates()) == []  # as its recipe allows
    assert len(held_by_counts(unreadable, None, None, Gates(max_quarantine_rate=0.1))) == 1
    (unread,) = held_by_counts(commit(store, texts_of(COOKING, 80), quarantined=20), None, None, Gates())
    assert "20 of the 100 records of web@v4 (20.0%) could not be read, at most 5.0%" in unread
    assert held_by_counts(good, None, None, Gates(min_kept_rate=0.5))[0].startswith(
        "kept rate: web@v1 kept 300 of 3,030"
    )


def test_a_kept_rate_that_changed_by_more_than_a_factor_is_held_in_both_directions(store):
    last = commit(store, texts_of(COOKING, 300), dropped=700)
    for kept, is_held in ((140, True), (200, False), (590, False), (700, True)):
        new = commit(store, texts_of(COOKING, kept), dropped=1000 - kept)
        reasons = held_by_counts(new, last, None, Gates())
        assert bool(reasons) is is_held, kept
        assert not is_held or f"kept {kept / 1000:.1%} of its records, web@v1 30.0%" in reasons[0]


@pytest.mark.parametrize(
    ("statistics", "named"),
    [
        (counted(languages={"en": 500, "de": 500}), "languages: those of web@v2 and of web@v1 are"),
        (counted(languages={"en": 850, "de": 150}), None),
        (counted(bytes_from={"200": 950, "1000": 50}), "most changed: from 1000 bytes 50% -> 5%"),
        (counted(languages={"en": 900, "de": 90, **{f"x{i}": 1 for i in range(10)}}), None),
    ],
)
def test_languages_and_lengths_are_held_where_their_distribution_shifted(store, statistics, named):
    last = commit(store, texts_of(COOKING, 1000), statistics=counted())
    reasons = held_by_counts(
        commit(store, texts_of(COOKING, 1000), dropped=1, statistics=statistics), last, None, Gates()
    )
    assert len(reasons) == (0 if named is None else 1)
    assert named is None or named in reasons[0]


def test_topics_are_held_by_the_words_of_texts(store):
    versions = Versions(store)
    commit(store, texts_of(COOKING, 300))
    assert held(versions, commit(store, texts_of(COOKING[2:] + COOKING[:2], 310))) == []
    (reason,) = held(versions, commit(store, texts_of(COURTS, 300)))
    assert reason.startswith("topics: the words of web@v3 and of web@v2 are 1.00 apart, at most 0.1 is allowed")
    assert any(word in reason for word in COURTS)
    assert held(versions, versions.manifest("web", 3), Gates(max_topic_drift=None)) == []


def test_what_an_increment_added_is_compared_and_not_the_whole(store):
    versions = Versions(store)
    base = commit(store, texts_of(COOKING, 9000), statistics=counted(languages={"en": 9000}))
    added = counted(languages={"en": 9000, "de": 300})
    night = commit(store, texts_of(COURTS, 300), dropped=300, statistics=added, upon=base)
    languages, topics = held(versions, night)
    assert "languages: those of what web@v2 added and of web@v1" in languages and "de 0% -> 100%" in languages
    assert topics.startswith("topics: the words of what web@v2 added and of web@v1")


def test_few_records_are_compared_with_nothing_and_neither_is_a_takedown_or_another_form(store):
    versions = Versions(store)
    last = commit(store, texts_of(COOKING, 199), statistics=counted())
    assert held(versions, commit(store, texts_of(COURTS, 400), statistics=counted(languages={"de": 400}))) == []
    second = versions.manifest("web", 2)
    without = commit(store, texts_of(COOKING, 300), statistics=counted(), upon=second, role="forget")
    assert held(versions, without) == []
    other = commit(store, texts_of(COOKING, 300), statistics=counted(), form="samples")
    assert held(versions, other) == [] and last.form == "documents"


def test_a_withdrawn_version_is_no_measure(store):
    versions = Versions(store)
    commit(store, texts_of(COOKING, 300))
    commit(store, texts_of(COURTS, 300))
    versions.withdraw("web", 2, "wrong crawl")
    assert held(versions, commit(store, texts_of(COOKING, 301))) == []


def nights(store: Store, *added: tuple[list[str], int]) -> list[Manifest]:
    """A version that each night extends: texts of these words, so many."""
    committed: list[Manifest] = []
    for words, n in added:
        committed.append(commit(store, texts_of(words, n), upon=committed[-1] if committed else None))
    return committed


def test_a_night_that_extends_a_held_one_is_held_with_it_until_one_of_them_is_accepted(store):
    versions, by = Versions(store), Gates()
    first, wrong, good, last = nights(store, (COOKING, 3000), (COURTS, 300), (COOKING, 301), (COOKING, 302))
    assert held(versions, first) == [] and len(held(versions, wrong)) == 1
    for night in (good, last):
        (reason,) = held(versions, night)
        assert reason.startswith(f"{night} contains web@v2, which is held: topics: the words of what web@v2 added")
    assert held(versions, last, by, ["web@v2"]) == held(versions, last, by, ["web@v3"]) == []
    assert held(versions, wrong, by, ["web@v3"])  # what contains it was accepted, and not it
    assert held(versions, last, Gates(max_topic_drift=None)) == []


def test_what_passed_is_known_to_those_who_ask_by_the_same_gates(store, monkeypatch):
    versions, by = Versions(store), Gates()
    _, wrong, good = nights(store, (COOKING, 3000), (COURTS, 300), (COOKING, 301))
    note_passed(versions, wrong, by, ["web@v2"])
    assert held(versions, wrong) == held(versions, good) == []  # accepted once, it need not be named any more
    assert len(held(versions, good, Gates(max_topic_drift=0.2))) == 1
    note_passed(versions, good, by)
    looked_at = judged(monkeypatch)
    after = commit(store, texts_of(COOKING, 303), upon=good)
    assert held(versions, after) == [] and looked_at == ["web@v4"]  # one judgement a night, however many there were


@pytest.mark.parametrize("announcing", [False, True])
def test_what_passed_before_a_held_night_is_written_down_though_that_is_held(store, monkeypatch, announcing):
    versions, by, server = Versions(store), Gates(), Events()
    _, _, good, last = nights(store, (COOKING, 3000), (COURTS, 300), (COOKING, 301), (COURTS, 302))
    if announcing:
        reasons = pass_on(server, versions, last, store.uri, by, ["web@v3"])  # type: ignore[arg-type]
    else:
        reasons = hold_back(store, [last], by, ["web@v3"]).splitlines()
    assert len(reasons) == 1 and "what web@v4 added" in reasons[0] and not server.seen
    looked_at = judged(monkeypatch)
    assert held(versions, good) == [] and looked_at == []  # accepted once, it need not be named any more
    assert held(versions, last) == [reasons[0].removeprefix("web@v4: ")] and looked_at == ["web@v4"]


def test_of_many_held_nights_the_newest_are_named(store):
    *_, last = nights(store, (COOKING, 300), *((COURTS, 300 + n) for n in range(5)))
    reasons = held(Versions(store), last, Gates(max_topic_drift=0.0))
    about = [reason.partition(",")[0] for reason in reasons]
    assert about[0].startswith("topics: the words of what web@v6 added")
    assert about[1:4] == [f"web@v6 contains web@v{n}" for n in (5, 4, 3)]
    assert reasons[4] == "so are 1 more versions that it contains"


def test_what_a_takedown_left_of_a_held_night_is_held_with_it(store):
    first, wrong = nights(store, (COOKING, 300), (COURTS, 300))
    cleaned, again = commit(store, [], upon=wrong, role="forget"), commit(store, texts_of(COURTS, 301))
    versions = Versions(store)
    versions.withdraw("web", 2, "taken down")
    (reason,) = held(versions, cleaned)
    assert reason.startswith("web@v3 contains web@v2, which is held: topics")
    store.delete(wrong.shards[-1].key)  # as gc does
    (reason,) = held(versions, cleaned)
    assert reason.startswith("web@v3 contains web@v2, which is held: topics: the records of web@v2 were taken down")
    assert reason.endswith("and accept web@v2, or a version that contains it")
    assert held(versions, cleaned, accepted=["web@v3"]) == held(versions, cleaned, accepted=["web@v2"]) == []
    assert held(versions, cleaned, Gates(min_records=301)) == held(versions, cleaned, Gates(max_topic_drift=None)) == []
    versions.withdraw("web", 1, "taken down")
    store.delete(first.shards[0].key)
    for gone, of in (("web@v2 and web@v1", cleaned), ("web@v1", again)):  # the second is judged by what is gone
        assert f"the records of {gone} were taken down" in held(versions, of)[0]


def test_objects_that_are_lost_are_no_reason_to_pass(store):
    _, wrong = nights(store, (COOKING, 300), (COURTS, 300))
    store.delete(wrong.shards[-1].key)
    with pytest.raises(NotFound):
        held(Versions(store), wrong)


def test_what_is_made_anew_is_compared_with_the_last_that_passed(store):
    versions, by = Versions(store), Gates()
    commit(store, texts_of(COOKING, 300))
    wrong = commit(store, texts_of(COURTS, 300))
    again = commit(store, texts_of(COURTS, 301))
    for each in (wrong, again):  # the second one is like the first, which was held
        (reason,) = held(versions, each)
        assert reason.startswith(f"topics: the words of {each} and of web@v1")
    back = commit(store, texts_of(COOKING, 301))
    assert held(versions, back) == []
    (reason,) = held(versions, back, by, ["web@v2"])  # a person said that courts are right
    assert reason.startswith("topics: the words of web@v4 and of web@v3")


def test_a_pass_that_cannot_be_read_is_judged_again(store, caplog):
    versions = Versions(store)
    _, wrong = nights(store, (COOKING, 300), (COURTS, 300))
    note_passed(versions, wrong, Gates(), ["web@v2"])
    (key,) = [info.key for info in store.list("datasets/web/passed/")]
    assert held(versions, wrong) == []
    store.put(key, b"{}")
    assert len(held(versions, wrong)) == 1 and f"{key} in" in caplog.text


def test_the_index_is_that_of_the_books():
    assert stability_index({"a": 10, "b": 20}, {"a": 100, "b": 200}) == pytest.approx(0, abs=1e-3)
    # by hand: (.3 - .5) ln(.3 / .5) + (.7 - .5) ln(.7 / .5), less what half a record in a bin changes
    assert stability_index({"a": 3000, "b": 7000}, {"a": 5000, "b": 5000}) == pytest.approx(0.16946, abs=1e-3)
    assert stability_index({"a": 1000}, {"b": 1000}) > 10


def test_the_divergence_is_symmetric_and_counts_a_word_once_a_text():
    there, back = (
        topic_drift(texts_of(COOKING, 50), texts_of(COURTS, 50)),
        topic_drift(texts_of(COURTS, 50), texts_of(COOKING, 50)),
    )
    assert there[0] == pytest.approx(back[0]) == pytest.approx(1)
    assert topic_drift(["butter flour"] * 50, ["butter butter butter flour"] * 50)[0] == 0
    assert topic_drift([], []) == (0.0, [])


@pytest.mark.parametrize(
    "wrong", [{"max_quarantine_rate": 2}, {"max_kept_change": 0.5}, {"topic_records": 0}, {"min_kept_rate": -1}]
)
def test_thresholds_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Gates(**wrong)
