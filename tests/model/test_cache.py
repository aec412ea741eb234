"""Attention over pages: equal to torch's, and of a sequence the same bits in any row, any pages, beside any others."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TEXT
from torch import Tensor

from gristmill.model.generate import cache as cache_module
from gristmill.model.generate.cache import Cache
from gristmill.model.phi4.config import TextConfig

pytestmark = pytest.mark.usefixtures("one_thread")
BLOCK, LENGTH, ROWS, CPU = 8, 48, 4, torch.device("cpu")
CONFIG = replace(TEXT, num_hidden_layers=2)
HEADS, GROUPS, DIM = CONFIG.num_attention_heads, CONFIG.num_key_value_heads, CONFIG.head_dim
Row = tuple[Tensor, Tensor, Tensor]
"""q, k, v [heads, length, dim] of a sequence."""


class Rows:
    """A cache and the pages of each of its rows."""

    def __init__(self, dtype: torch.dtype = torch.float32, config: TextConfig = CONFIG) -> None:
        self.cache = Cache(config, ROWS, LENGTH, BLOCK, dtype, CPU)
        self.pages: list[list[int]] = [[] for _ in range(ROWS)]

    def feed(self, rows: list[Row | None], starts: list[int], count: int) -> Tensor:
        """`count` tokens of each row's sequence from its start on, through layer 1: [rows, heads, count, dim]. A row
        that is None rests."""
        for pages, row, start in zip(self.pages, rows, starts, strict=True):
            if row is not None:
                self.cache.grow(pages, start + count)
        first = next(row for row in rows if row is not None)
        places = torch.tensor([0 if row is None else start for row, start in zip(rows, starts, strict=True)])
        parts = [
            torch.stack([(row or first)[i][:, s : s + count] for row, s in zip(rows, places.tolist(), strict=True)])
            for i in range(3)
        ]
        shown = [[] if row is None else pages for pages, row in zip(self.pages, rows, strict=True)]
        return self.cache.at(shown, places[:, None] + torch.arange(count))(1, *parts)

    def release(self, row: int) -> None:
        self.cache.release(self.pages[row])

    def scribble(self, value: float | None = None) -> None:
        """What earlier sequences may have left."""
        for tensor in (self.cache.keys, self.cache.values):
            tensor.normal_() if value is None else tensor.fill_(value)


def sequence(seed: int, heads: int = HEADS, groups: int = GROUPS) -> Row:
    pick = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(n, LENGTH, DIM, generator=pick) for n in (heads, groups, groups))
    return q, k, v


def by_token(rows: list[Row | None]) -> Tensor:
    """All of the sequences, one token a call, as in generation."""
    held = Rows()
    return torch.cat([held.feed(rows, [place] * ROWS, 1) for place in range(LENGTH)], 2)


def reference(row: Row) -> Tensor:
    q, k, v = (tensor[None] for tensor in row)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0]


@pytest.mark.parametrize("count", [1, 4, 8])
def test_it_is_causal_attention(count: int) -> None:
    rows, held = [sequence(i) for i in range(ROWS)], Rows()
    output = torch.cat([held.feed([*rows], [i] * ROWS, count) for i in range(0, LENGTH, count)], 2)
    torch.testing.assert_close(output, torch.stack([reference(row) for row in rows]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("groups", [1, 6])
def test_key_heads_may_serve_all_or_one(groups: int) -> None:
    rows, held = (
        [sequence(i, groups=groups) for i in range(ROWS)],
        Rows(config=replace(CONFIG, num_key_value_heads=groups)),
    )
    output = torch.cat([held.feed([*rows], [i] * ROWS, 1) for i in range(LENGTH)], 2)
    torch.testing.assert_close(output, torch.stack([reference(row) for row in rows]), atol=1e-6, rtol=0)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    rows = [(q * 20, k * 20, v) for q, k, v in (sequence(i) for i in range(ROWS))]
    wide = torch.stack([reference((q.double(), k.double(), v.double())) for q, k, v in rows])
    torch.testing.assert_close(by_token([*rows]).double(), wide, atol=1e-3, rtol=0)


@settings(max_examples=15)
@given(st.randoms(use_true_random=False), st.integers(0, ROWS - 1))
def test_a_sequences_bits_do_not_depend_on_its_row_its_pages_or_the_others(pick: random.Random, row: int) -> None:
    """It goes on one token a time; beside it others begin, go on, rest and end as they like."""
    mine, held = sequence(0), Rows()
    expected, others, lengths = by_token([mine] * ROWS)[0], [sequence(1 + i) for i in range(ROWS)], [0] * ROWS
    place = 0
    while place < LENGTH:
        rows: list[Row | None] = [row if pick.random() < 0.7 else None for row in others]
        rows[row] = mine if pick.random() < 0.8 else None
        for i in range(ROWS):
            if i != row and (lengths[i] == LENGTH or pick.random() < 0.1):
                held.release(i)
                lengths[i] = 0
        if not any(rows):
            continue
        output = held.feed(rows, [place if i == row else n for i, n in enumerate(lengths)], 1)
        lengths = [n + (rows[i] is not None) for i, n in enumerate(lengths)]
        if rows[row] is not None:
            assert torch.equal(output[row, :, 0], expected[:, place])
            place += 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_an_earlier_sequence_left_is_not_seen(dtype: torch.dtype) -> None:
    fresh, used = Rows(dtype), Rows(dtype)
    used.scribble()
    rows: list[Row | None] = [tuple(tensor.to(dtype) for tensor in sequence(i)) for i in range(ROWS)]  # type: ignore[misc]
    for place in range(20):
        assert torch.equal(fresh.feed(rows, [place] * ROWS, 1), used.feed(rows, [place] * ROWS, 1))


def test_rows_that_rest_are_finite_and_write_nothing_that_is_looked_at() -> None:
    rows, held = [sequence(i) for i in range(ROWS)], Rows()
    for place in range(20):
        output = held.feed([rows[0], None, rows[2], None], [place] * ROWS, 1)
        assert output.isfinite().all()
    torch.testing.assert_close(output[2, :, 0], reference(rows[2])[:, 19], atol=1e-6, rtol=0)


def test_a_copied_sequence_goes_on_with_the_same_bits() -> None:
    rows, source, target = [sequence(i) for i in range(ROWS)], Rows(), Rows()
    whole = by_token([*rows])
    for place in range(19):
        source.feed([*rows], [place] * ROWS, 1)
    target.scribble()
    target.cache.grow(target.pages[0], 11)
    target.cache.grow(target.pages[3], 19)
    before = target.cache.keys.clone(), target.cache.values.clone()
    target.cache.copy(source.cache, source.pages[2], target.pages[3])
    others = [page for page in range(before[0].shape[1]) if page not in target.pages[3]]
    assert torch.equal(target.cache.keys[:, others], before[0][:, others])
    assert torch.equal(target.cache.values[:, others], before[1][:, others])
    for place in range(19, LENGTH):
        output = target.feed([None, None, None, rows[2]], [place] * ROWS, 1)
        assert torch.equal(output[3, :, 0], whole[2, :, place])


def test_pages_are_given_once_taken_back_and_enough_for_all() -> None:
    held = Rows()
    for pages in held.pages:
        held.cache.grow(pages, LENGTH)
    given_ = [page for pages in held.pages for page in pages]
    assert sorted(given_) == list(range(1, 1 + ROWS * LENGTH // BLOCK)), "each once, and never the one for rest"
    held.release(2)
    held.release(1)
    assert held.pages[1] == held.pages[2] == []
    held.cache.grow(held.pages[1], 1)
    held.cache.grow(held.pages[1], BLOCK)
    assert held.pages[1] == [7], "the lowest free one, and no more than are needed"
    held.cache.grow(held.pages[1], BLOCK + 1)
    assert held.pages[1] == [7, 8]


def test_a_sequence_gets_all_pages_or_none() -> None:
    held = Rows()
    assert all(held.cache.grow(pages, LENGTH) for pages in held.pages[:3])
    assert held.cache.grow(held.pages[3], LENGTH - BLOCK)
    late: list[int] = []
    assert not held.cache.grow(late, BLOCK + 1) and late == [], "one page is left"
    assert held.cache.grow(late, BLOCK) and not held.cache.grow(held.pages[3], LENGTH)


@pytest.mark.parametrize("mine", [1, 5, 17, 33])
def test_bits_do_not_depend_on_how_many_pages_others_have(mine: int) -> None:
    """Pages: sums of many are not made one by one, and must still not depend on the longest row's number."""
    pick, outputs = torch.Generator().manual_seed(0), []
    q, k, v = (torch.randn(ROWS, heads, 1, DIM, generator=pick) for heads in (HEADS, GROUPS, GROUPS))
    old = [torch.randn(2, mine, *shape, generator=pick) for shape in ((GROUPS, DIM, BLOCK), (GROUPS, BLOCK, DIM))]
    for other in (1, 2, 16, 18, 34, 257, 300):
        cache = Cache(CONFIG, ROWS, 310 * BLOCK, BLOCK, torch.float32, CPU)
        pages: list[list[int]] = [[] for _ in range(ROWS)]
        for row, count in ((1, other), (2, mine)):
            assert cache.grow(pages[row], count * BLOCK)
        cache.keys[:, pages[2]], cache.values[:, pages[2]] = old
        positions = torch.tensor([[0], [other * BLOCK - 1], [mine * BLOCK - 1], [0]])
        outputs.append(cache.at(pages, positions)(1, q, k, v)[2])
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_layers_do_not_share() -> None:
    held = Rows()
    held.feed([sequence(i) for i in range(ROWS)], [0] * ROWS, 1)
    assert all(tensor[1].any() and not tensor[0].any() for tensor in (held.cache.keys, held.cache.values))


def test_bfloat16_is_close_to_float32() -> None:
    rows, held = [sequence(i) for i in range(ROWS)], Rows(torch.bfloat16)
    half: list[Row | None] = [(q.bfloat16(), k.bfloat16(), v.bfloat16()) for q, k, v in rows]
    output = torch.cat([held.feed(half, [i] * ROWS, BLOCK) for i in range(0, LENGTH, BLOCK)], 2)
    assert output.dtype == torch.bfloat16
    assert (output.float() - torch.stack([reference(row) for row in rows])).abs().max() < 0.05


def test_a_length_that_is_no_multiple_of_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"length=20.*block=8"):
        Cache(CONFIG, 4, 20, 8, torch.float32, CPU)


def test_its_size_is_known_before() -> None:
    held, pages = Rows(torch.bfloat16), 1 + ROWS * LENGTH // BLOCK
    expected = 2 * 2 * pages * GROUPS * BLOCK * DIM * 2
    assert held.cache.bytes == Cache.size(CONFIG, ROWS, LENGTH, BLOCK, torch.bfloat16) == expected


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pages_by_sixteens_give_the_same_bits_as_all_at_once(
    count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of 1, 16, 17, 40 and 300 pages, which lie apart, beside one that rests."""
    pick, lengths = torch.Generator().manual_seed(0), (1, 16, 17, 40, 300, 0)
    held = Cache(CONFIG, len(lengths), 300 * BLOCK, BLOCK, dtype, CPU)
    held.keys.normal_(generator=pick)
    held.values.normal_(generator=pick)
    order = (1 + torch.randperm(sum(lengths), generator=pick)).split(lengths)
    pages = [part.tolist() for part in order]
    ends = torch.tensor([max(0, length * BLOCK - count) for length in lengths])
    positions = ends[:, None] + torch.arange(count)
    new = [torch.randn(len(lengths), heads, count, DIM, generator=pick).to(dtype) for heads in (HEADS, GROUPS, GROUPS)]
    outputs = []
    for most in (1 << 40, 0):
        monkeypatch.setattr(cache_module, "SCORES", most)
        outputs.append(held.at(pages, positions)(1, *new))
    assert torch.equal(outputs[0][:-1], outputs[1][:-1])
    assert outputs[1].isfinite().all()
