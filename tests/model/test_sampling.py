"""How a token is chosen, and when a sample ends: on given logits, and on a model that says what it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TEXT
from torch import Tensor

from gristmill.model.generate.engine import Completion, Engine, Options, Request
from gristmill.model.generate.sampling import Sampling, choose, sample_key, uniforms
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal

pytestmark = pytest.mark.usefixtures("one_thread")
LOGITS = torch.tensor([2.0, 0.5, -1.0, 2.0, 1.0, -torch.inf, 0.0, -3.0])
DRAWS = 20_000


def drawn(logits: Tensor, how: Sampling, numbers: np.ndarray) -> np.ndarray:
    """How often each token comes of these random numbers."""
    tokens = choose(logits.expand(len(numbers), -1), [how] * len(numbers), numbers)
    return np.bincount(tokens.numpy(), minlength=len(logits))


def chi_square(drawn_counts: np.ndarray, chances: np.ndarray) -> float:
    """Over tokens that can be drawn, per degree of freedom: about 1."""
    real = chances > 0
    expected = chances[real] * drawn_counts.sum()
    return float(((drawn_counts[real] - expected) ** 2 / expected).sum() / max(real.sum() - 1, 1))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_tokens_come_as_often_as_their_probability(temperature: float) -> None:
    numbers = uniforms([sample_key("frequencies", i) for i in range(DRAWS)], [i % 7 for i in range(DRAWS)])
    chances = (LOGITS.double() / temperature).softmax(-1).numpy()
    counts = drawn(LOGITS, Sampling(temperature=temperature), numbers)
    assert chi_square(counts, chances) < 3 and counts[5] == 0


IN_ORDER = [0, 3, 4, 1, 6, 2, 7]
"""By probability: .359, .359, .132, .080, .049, .018, .002; of equals the first first."""


@pytest.mark.parametrize(
    ("top_p", "count"), [(0.05, 1), (0.35, 1), (0.37, 2), (0.7, 2), (0.73, 3), (0.86, 4), (0.999, 7)]
)
def test_top_p_keeps_the_nucleus_and_its_proportions(top_p: float, count: int) -> None:
    kept = IN_ORDER[:count]
    numbers = uniforms([sample_key("nucleus", i) for i in range(DRAWS)], [0] * DRAWS)
    counts = drawn(LOGITS, Sampling(top_p=top_p), numbers)
    chances = np.zeros(len(LOGITS))
    chances[kept] = LOGITS.double().exp().numpy()[kept]
    assert set(np.flatnonzero(counts)) == set(kept)
    assert len(kept) == 1 or chi_square(counts, chances / chances.sum()) < 3


def test_both_ways_to_draw_agree_where_nothing_is_cut() -> None:
    numbers = (np.arange(1000) + 0.5) / 1000
    assert chi_square(drawn(LOGITS, Sampling(top_p=1 - 1e-12), numbers), LOGITS.double().softmax(-1).numpy()) < 0.1


def test_every_share_of_the_numbers_is_a_probability_exactly() -> None:
    numbers = (np.arange(8) + 0.0) / 8
    counts = drawn(torch.tensor([0.5, 0.0, 0.125, 0.375]).log(), Sampling(), numbers)
    assert counts.tolist() == [4, 0, 1, 3]


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2.0**-40])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_token_that_cannot_be_is_never_drawn(number: float, top_p: float) -> None:
    logits = torch.full((1000,), -torch.inf)
    logits[[3, 500, 998]] = torch.tensor([0.0, 1.0, -1.0])
    token = choose(logits[None], [Sampling(top_p=top_p)], np.array([number])).item()
    assert token in (3, 500, 998)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-310, 1e-300, 1e-30, 1e-4])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_the_colder_the_surer(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[1.0, 5.0, 4.9, -torch.inf, 0.0]])
    for number in (0.0, 0.3, 0.999):
        assert choose(logits, [Sampling(temperature=temperature, top_p=top_p)], np.array([number])).tolist() == [1]


def test_of_equals_the_first_is_the_most_likely() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, 3.0]])
    how = [Sampling(temperature=0), Sampling(top_p=0.01)]
    assert choose(logits.expand(2, -1), how, np.array([0.9, 0.9])).tolist() == [1, 1]


SETTINGS = st.builds(
    Sampling, temperature=st.sampled_from([0.0, 0.2, 1.0, 3.0]), top_p=st.sampled_from([0.1, 0.6, 0.95, 1.0])
)


@settings(max_examples=30)
@given(st.lists(SETTINGS, min_size=1, max_size=9), st.integers(0, 1000))
def test_a_row_is_chosen_as_if_it_were_alone(how: list[Sampling], seed: int) -> None:
    logits = torch.randn(len(how), 50, generator=torch.Generator().manual_seed(seed)) * 2
    numbers = uniforms([sample_key("alone", seed)] * len(how), range(len(how)))
    alone = [choose(logits[i : i + 1], [how[i]], numbers[i : i + 1]).item() for i in range(len(how))]
    assert choose(logits, how, numbers).tolist() == alone


# Random numbers.


def test_random_numbers_are_what_they_were() -> None:
    """A change here changes every sample ever generated."""
    keys = [sample_key("run/problem", 0), sample_key("run/problem", 1), sample_key("", 0)]
    assert keys == KEYS
    assert [number.hex() for number in uniforms([*keys, *keys, 0, 2**64 - 1], [0, 0, 0, 1, 2, 10_000, 0, 0])] == NUMBERS


KEYS = [15221650217492455552, 8613711350559998126, 236512214089386803]
NUMBERS = [
    "0x1.ef129ac5c0000p-6",
    "0x1.420eb13d4c000p-2",
    "0x1.58d445b6e8000p-2",
    "0x1.22150986cc000p-2",
    "0x1.43727d432c000p-1",
    "0x1.e2555a15c6000p-1",
    "0x1.c4415072f6000p-1",
    "0x1.c9b2e2ee36000p-1",
]


def test_random_numbers_fill_their_range_and_end_below_one() -> None:
    numbers = uniforms([sample_key("range", i // 100) for i in range(DRAWS)], [i % 100 for i in range(DRAWS)])
    assert numbers.dtype == np.float64 and numbers.min() >= 0 and numbers.max() < 1
    assert chi_square(np.histogram(numbers, 100, (0, 1))[0], np.full(100, 0.01)) < 1.5
    assert len(np.unique(numbers)) == DRAWS
    assert (numbers * 2**40 == np.floor(numbers * 2**40)).all()


@pytest.mark.parametrize("by", ["key", "sample", "place", "bit"])
def test_neighbours_are_not_alike(by: str) -> None:
    count = range(DRAWS // 4)
    base = [sample_key(f"run/{i}" if by == "key" else "run", 0 if by == "key" else i) for i in count]
    if by == "bit":
        pairs = uniforms(base, [0] * len(base)), uniforms([key ^ 1 for key in base], [0] * len(base))
    elif by == "place":
        pairs = uniforms(base, [0] * len(base)), uniforms(base, [1] * len(base))
    else:
        numbers = uniforms(base, [0] * len(base))
        pairs = numbers[:-1], numbers[1:]
    assert abs(np.corrcoef(*pairs)[0, 1]) < 4 / len(base) ** 0.5


def test_a_number_depends_on_its_key_and_place_alone() -> None:
    number = uniforms([7], [3])
    assert uniforms([1, 7, 2**64 - 1], [0, 3, 9])[1] == number[0] and len({*uniforms([7] * 50, range(50))}) == 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": 101.0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"stop": ("a", "")},
        {"logprobs": -1},
        {"logprobs": 21},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}=.*allowed is"):
        Sampling(**wrong)  # type: ignore[arg-type]


# Ends: of a model that goes through `pieces`, one token each from 20, whatever stood before.


class ScriptedModel:
    """An engine over a model that writes these pieces; after them, the end token 3, and then 50, 51, .."""

    def __init__(self, *pieces: bytes, length: int = 64) -> None:
        self.pieces = {20 + i: piece for i, piece in enumerate(pieces)}
        text = replace(TEXT, num_hidden_layers=1, hidden_size=96, num_attention_heads=12, tie_word_embeddings=False)
        self.model = Multimodal.seeded(ModelConfig(text), 0)
        path = [10, *self.pieces, 3, *range(50, 150)]
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                    parameter.zero_()
            rows = self.model.language.embed_tokens.weight.normal_()
            self.model.language.lm_head.weight[path[1:]] = rows[path[:-1]]
        self.engine = Engine(self.model, Options(4, length, 4, 8, 16), self.decode)

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.pieces.get(token, b"<%d>" % token) for token in tokens).decode(errors="replace")

    def write(self, *stop: str, **changes: object) -> tuple[Completion, str]:
        how = Sampling(temperature=0, stop=stop, **changes)  # type: ignore[arg-type]
        (completion,) = self.engine.run([Request("a", (10,), how)])
        return completion, completion.text(self.decode, TEXT.eos_token_id)


def test_an_end_token_ends_a_sample_and_is_not_text() -> None:
    completion, text = ScriptedModel(b"a", b"b").write()
    assert (completion.tokens, completion.finish_reason, completion.stop_reason, text) == (
        [20, 21, 3],
        "stop",
        None,
        "ab",
    )


def test_an_end_token_may_be_ignored() -> None:
    completion, text = ScriptedModel(b"a").write(ignore_eos=True, max_tokens=4)
    assert (completion.tokens, completion.finish_reason, text) == ([20, 3, 50, 51], "length", "a<3><50><51>")


def test_the_last_token_that_is_allowed_may_still_be_the_end() -> None:
    assert ScriptedModel(b"a").write(max_tokens=2)[0].finish_reason == "stop"
    assert ScriptedModel(b"a", b"b").write(max_tokens=2)[0].finish_reason == "length"


def test_a_full_context_ends_a_sample() -> None:
    completion, _ = ScriptedModel(b"a", length=32).write(ignore_eos=True)
    assert completion.finish_reason == "length" and completion.length == 32 and len(completion.tokens) == 31


@pytest.mark.parametrize(
    ("pieces", "stop", "tokens", "text"),
    [
        ([b"one", b" END", b"two"], "END", 2, "one "),
        ([b"E", b"N", b"D", b"two"], "END", 3, ""),
        ([b"xxE", b"N", b"Dyy", b"z"], "END", 3, "xx"),
        ([b"EN", b"END", b"z"], "END", 2, "EN"),
        ([b"aENDbENDc", b"z"], "END", 1, "a"),
        ([b"x", b"E", b"N", b"D of a token much longer than its stop text", b"z"], "END", 4, "x"),
        ([b"a", b"b", b"c", b"d", b"e and so on, and on", b"z"], "abcde", 5, ""),
        ([b"x", b"\xc3", b"\xa9", b"z"], "é", 3, "x"),
        ([b"\xc3\xa9\xe2", b"\x82", b"\xac\xc3", b"\xa9", b"z"], "€é", 4, "é"),
        ([b"\xf0", b"\x9f", b"\x98", b"\x80", b"\xf0", b"\x9f", b"\x98", b"\x81", b"z"], "😀😁", 8, ""),
        ([b"", b"a", b"", b"", b"b", b"", b"", b"", b"", b"", b"", b"c", b"z"], "abc", 12, ""),
    ],
)
def test_a_stop_text_ends_a_sample_and_is_cut_off(pieces: list[bytes], stop: str, tokens: int, text: str) -> None:
    completion, written = ScriptedModel(*pieces).write("never", stop)
    assert (len(completion.tokens), completion.finish_reason, completion.stop_reason, written) == (
        tokens,
        "stop",
        stop,
        text,
    )


def test_of_stop_texts_that_one_token_completes_the_first_in_the_text_cuts() -> None:
    completion, text = ScriptedModel(b"a", b"bc", b"z").write("c", "b")
    assert (completion.finish_reason, completion.stop_reason, text) == ("stop", "b", "a")


def test_a_prompt_holds_no_stop_text_and_other_samples_go_on() -> None:
    model = ScriptedModel(b"a", b"b", b"c")
    how = Sampling(temperature=0)
    requests = [Request("x", (50, 20), replace(how, stop=("b",))), Request("y", (20, 21), replace(how, stop=("b",)))]
    ended = {
        completion.request.key: completion for completion in model.engine.run([*requests, Request("z", (10,), how)])
    }
    assert {key: (completion.tokens, completion.stop_reason) for key, completion in ended.items()} == {
        "x": ([21], "b"),
        "y": ([22, 3], None),
        "z": ([20, 21, 22, 3], None),
    }
