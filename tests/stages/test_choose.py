"""Who survives of near duplicates: against the rule in plain Python, and at what cost."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import comb

import numpy as np
import pyarrow as pa
import pytest
from near import WIDTH, GrownDataset, edited, ids_of, ranks_of, template, texts, world

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.stages.clusters import settle as settling
from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.clusters.settle import NONE, UNDECIDED, most_survivors, settle
from gristmill.stages.media.looks import signature
from gristmill.stages.vision.sign import SelectPictures


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def by_the_rule(values: np.ndarray, ids: list[str], ranks: list[float]) -> dict[str, str]:
    """id -> survivor, of documents that all hang together: the rule, one comparison at a time."""
    survivors: list[int] = []
    favoured = {}
    for i in sorted(range(len(values)), key=lambda i: (-ranks[i], ids[i])):
        agreed = [int((values[i] == values[other]).sum()) for other in survivors]
        allowed = [k for k in agreed if doubt(k) * len(survivors) <= Fraction(1, 4)]
        if allowed:
            favoured[ids[i]] = ids[survivors[agreed.index(max(allowed))]]
        else:
            survivors.append(i)
            favoured[ids[i]] = ids[i]
    return favoured


@cache
def doubt(agreed: int, similarity: float = 0.7) -> Fraction:
    """How often a document of this similarity agrees in so many values or more."""
    share = Fraction(similarity)
    if agreed == WIDTH:
        return Fraction(0)
    return sum((comb(WIDTH, k) * share**k * (1 - share) ** (WIDTH - k) for k in range(agreed, WIDTH + 1)), Fraction())


@pytest.mark.parametrize("seed", range(6))
def test_survivors_are_those_of_the_rule(seed):
    values, ids, ranks = world(seed)
    order = np.array(sorted(range(len(ids)), key=lambda i: (-ranks[i], ids[i])))
    state = np.full(len(ids), UNDECIDED, np.uint8)
    settled = settle(values, order, np.array([0, len(ids)]), state, pa.array(ids), 0.7)
    assert {id: ids[at] for id, at in zip(ids, settled.survivor, strict=True)} == by_the_rule(values, ids, ranks)
    agreed = (values == values[settled.survivor]).sum(1)
    assert settled.agreement.tolist() == agreed.tolist()


def test_how_many_values_have_to_agree():
    """Of 112 at .7: 83 with one survivor, which is .74; of more, more, because one of them may agree by chance."""
    bounds = most_survivors(WIDTH, 0.7)
    assert [int(np.searchsorted(bounds, n)) for n in (1, 2, 10, 100, 1000, 10**6)] == [83, 85, 89, 92, 95, 102]
    assert [int(np.searchsorted(most_survivors(WIDTH, share), 1)) for share in (0.5, 0.8, 0.9, 1.0)] == [
        61,
        94,
        104,
        WIDTH,
    ]
    assert most_survivors(4, 0.7)[4] > 1 << 60 and max(most_survivors(4, 0.7)[:4]) == 0  # four values say little


@pytest.mark.parametrize("given", [0.0, -0.1, 1.1])
def test_a_similarity_is_above_0_up_to_1(given):
    with pytest.raises(ValueError, match=rf"min_similarity is {given}; .*or null"):
        SelectSurvivors(given)


# Components


@pytest.mark.parametrize("pages", [2, 30, 300])
@pytest.mark.parametrize("similarity", [0.47, 0.62])
def test_pages_with_a_common_template_stay(store, pages, similarity):
    random = np.random.default_rng(pages)
    increments = GrownDataset(store)
    increments.increment(template(random, pages, similarity), ids_of(random, pages), ranks_of(random, pages))
    assert len(increments.kept) == pages


@pytest.mark.parametrize(("similarity", "least"), [(0.95, 1.0), (0.9, 0.99), (0.85, 0.95), (0.8, 0.84)])
def test_near_duplicates_go(store, similarity, least):
    """The share of bands alone is .92 at .8; the estimate costs a little of it."""
    random = np.random.default_rng(5)
    heads = texts(random, 400)
    copies = np.concatenate([edited(random, head, similarity, 1) for head in heads])
    increments = GrownDataset(store)
    increments.increment(np.concatenate([heads, copies]), ids_of(random, 800), [200.0] * 400 + [100.0] * 400)
    assert len(increments.values) / 400 >= least
    assert all(0.7 <= float(value) <= 1 for value in increments.values.values())


@pytest.mark.parametrize("length", [5, 26, 60])
def test_a_chain_does_not_collapse(store, length):
    """Each revision is like the one before it; what is dropped is like its survivor, and much is dropped."""
    random = np.random.default_rng(length)
    chain = [texts(random, 1)[0]]
    for _ in range(length - 1):
        chain.append(edited(random, chain[-1], 0.88, 1)[0])
    ids = ids_of(random, length)
    increments = GrownDataset(store)
    increments.increment(np.array(chain), ids, ranks_of(random, length))
    at = {id: chain[i] for i, id in enumerate(ids)}
    for id, survivor in increments.survivors.items():
        alike = float((at[id] == at[survivor]).mean())
        assert (
            alike >= 0.74
            and increments.values[id] == f"{np.floor(100 * alike) / 100:.2f}"
            and survivor in increments.kept
        )
    assert length / 8 < len(increments.kept) < length * 0.7 + 1


def test_a_star_and_a_bridge_keep_their_clusters_apart(store):
    """Ten relatives of each of two texts, and a page that quotes half of both and hangs them together."""
    random = np.random.default_rng(3)
    a, b = texts(random, 2)
    bridge = np.concatenate([a[: WIDTH // 2], b[WIDTH // 2 :]])
    values = np.concatenate([[a, b, bridge], edited(random, a, 0.9, 10), edited(random, b, 0.9, 10)])
    ids = [f"{i:032x}" for i in range(len(values))]
    increments = GrownDataset(store)
    increments.increment(values, ids, [90.0, 90.0, 100.0] + [10.0] * 20)
    assert increments.kept == set(ids[:3])
    assert {increments.survivors[id] for id in ids[3:13]} == {ids[0]}
    assert {increments.survivors[id] for id in ids[13:]} == {ids[1]}


def test_copies_go_to_the_best_of_them_and_equal_signatures_are_alike_at_1(store):
    random = np.random.default_rng(4)
    values = np.repeat(texts(random, 3), 5, axis=0)
    ids = ids_of(random, 15)
    increments = GrownDataset(store, SelectSurvivors(1.0))
    increments.increment(values, ids, [1.0] * 15)
    assert increments.kept == {min(ids[i : i + 5]) for i in (0, 5, 10)} and set(increments.values.values()) == {"1.00"}


def test_without_a_similarity_whatever_hangs_together_has_one_survivor(store):
    random = np.random.default_rng(26)
    increments = GrownDataset(store, SelectSurvivors(None))
    increments.increment(template(random, 30, 0.62), ids_of(random, 30), ranks_of(random, 30))
    assert len(increments.kept) < 8 and set(increments.values.values()) == {None}


# Cost


@pytest.mark.parametrize("similarity", [0.3, 0.62, 0.9])
def test_comparisons_grow_with_the_documents(monkeypatch, similarity):
    """A page meets so many survivors and no more, in a template of any size and of any weight."""
    monkeypatch.setattr(settling, "SCAN_LIMIT", 64)
    random = np.random.default_rng(11)
    pages = template(random, 8000, similarity)
    compared = [settled_alone(pages[:n]).compared for n in (2000, 4000, 8000)]
    most = 64 + 28 * settling.BUCKET_CAP
    assert all(n <= most * size for n, size in zip(compared, (2000, 4000, 8000), strict=True))
    assert compared[2] - compared[1] < 3 * (compared[1] - compared[0])  # of all pairs: 4 times


def test_near_duplicates_are_found_in_a_template_of_many(monkeypatch):
    """Beyond the survivors that are scanned one by one, by pieces that the template does not have."""
    monkeypatch.setattr(settling, "SCAN_LIMIT", 64)
    random = np.random.default_rng(12)
    pages = template(random, 4000, 0.62)
    copies = np.concatenate([edited(random, pages[i], 0.93, 1) for i in range(2000, 2300)])
    settled = settled_alone(np.concatenate([pages, copies]))
    survivor = settled.survivor[4000:]
    assert (survivor == np.arange(2000, 2300)).mean() > 0.95
    assert (settled.survivor[:4000] == np.arange(4000)).mean() > 0.999


def settled_alone(values: np.ndarray) -> settling.Settled:
    n = len(values)
    ids = pa.array([f"{i:032x}" for i in range(n)])
    return settle(values, np.arange(n), np.array([0, n]), np.full(n, UNDECIDED, np.uint8), ids, 0.7)


def test_what_was_dropped_before_is_nobodys_survivor():
    values = np.repeat(texts(np.random.default_rng(1), 1), 3, axis=0)
    ids = pa.array(["a", "b", "c"])
    settled = settle(values, np.array([0, 1, 2]), np.array([0, 3]), np.array([2, 0, 0], np.uint8), ids, 0.7)
    assert settled.survivor.tolist() == [NONE, 1, 1]


def test_copies_of_pictures_are_found_among_many_with_one_text():
    """Of a value that says a bit, four in a row are common among thousands; bands of twenty are not."""
    random = np.random.default_rng(13)
    looks = [int(look) for look in random.integers(0, 1 << 63, 3000)]
    copies = [look ^ sum(1 << int(bit) for bit in random.permutation(63)[:6]) for look in looks[1000:1300]]
    values = np.stack([signature([look], "the mill") for look in (*looks, *copies)])
    n, ids = len(values), pa.array([f"{i:032x}" for i in range(len(values))])
    stage = SelectPictures()
    state = np.full(n, UNDECIDED, np.uint8)
    settled = settle(values, np.arange(n), np.array([0, n]), state, ids, 0.84, estimated=False, places=stage.places)
    assert (settled.survivor[3000:] == np.arange(1000, 1300)).mean() > 0.98
    assert (settled.survivor[:3000] == np.arange(3000)).mean() > 0.999
    assert settled.compared < 3000 * 1024
