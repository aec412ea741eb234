"""Tokens are drawn by sums of whole numbers, in any order the same; all rows at once, each as if it were alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.model.generate.sampling import Sampling, _weights, choose, draw_all, sample_key, uniforms, way_of

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = st.builds(
    Sampling, temperature=st.sampled_from([0.0, 0.2, 1.0, 3.0]), top_p=st.sampled_from([0.1, 0.6, 0.95, 1.0])
)


@settings(max_examples=30)
@given(st.lists(SETTINGS, min_size=1, max_size=9), st.integers(0, 1000))
def test_all_rows_at_once_are_drawn_as_each_in_its_own_way(how: list[Sampling], seed: int) -> None:
    logits = torch.randn(len(how), 50, generator=torch.Generator().manual_seed(seed)) * 2
    numbers = uniforms([sample_key("all", seed)] * len(how), range(len(how)))
    heat, top_p = (torch.tensor([[s.temperature, s.top_p] for s in how], dtype=torch.float64)).T
    drawn_tokens = draw_all(logits, heat, top_p, torch.from_numpy(numbers), way_of(how))
    assert drawn_tokens.tolist() == choose(logits, how, numbers).tolist()


@pytest.mark.parametrize("vocab", [1, 2, 127, 128, 129, 300, 200_064])
@pytest.mark.parametrize("top_p", [1.0, 1 - 1e-12])
def test_a_vocabulary_is_divided_exactly(vocab: int, top_p: float) -> None:
    """Sums of whole numbers have room for the largest vocabulary, and each token has its place among the numbers."""
    tokens = torch.tensor([0, vocab // 3, vocab // 2, vocab - 1])
    numbers = (tokens.double().numpy() + 0.5) / vocab
    assert choose(torch.zeros(4, vocab), [Sampling(top_p=top_p)] * 4, numbers).tolist() == tokens.tolist()


def test_sums_have_the_same_bits_in_any_order() -> None:
    """The places of tokens among the numbers are sums of whole numbers: another order, the same places."""
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(1)) * 3
    weights = _weights(logits, torch.ones(1, dtype=torch.float64))[0]
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(2))
    assert weights.dtype == torch.int64 and weights.sum() == sum(weights.tolist()) == weights[order].sum()
    exact = np.array(list(itertools.accumulate(weights.tolist())), object)
    numbers = uniforms([sample_key("exact", 0)] * 64, range(64))
    places = [int(number * float(exact[-1])) for number in numbers]
    expected = [int(np.searchsorted(exact, place, "right")) for place in places]
    assert choose(logits.expand(64, -1), [Sampling()] * 64, numbers).tolist() == expected
