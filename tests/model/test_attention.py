"""Attention by segment: numbers and gradients of each segment alone, nothing of its neighbours, and no more work."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from models import NANO, batch_of_all_kinds, enlivened
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from gristmill.model.phi4 import attention
from gristmill.model.phi4.attention import KERNEL, Attention, EndToEnd, Places
from gristmill.model.train.objective import Objective

pytestmark = pytest.mark.usefixtures("one_thread")
HEADS, KV_HEADS, CHANNELS = 6, 2, 8
CLOSE = {"atol": 1e-5, "rtol": 0}


def segment_lengths(tokens: int, count: int, seed: int = 0) -> list[int]:
    """Random ones, which add up to `tokens`."""
    cuts = sorted(random.Random(seed).sample(range(1, tokens), count - 1))
    return [end - start for start, end in zip([0, *cuts], [*cuts, tokens], strict=True)]


def numbered(*rows: list[int]) -> Tensor:
    """The number of each token's segment over the batch, [rows, tokens]."""
    counts = torch.tensor([length for row in rows for length in row])
    return torch.repeat_interleave(torch.arange(len(counts)), counts).view(len(rows), -1)


def projections(batch: int, length: int) -> list[Tensor]:
    """q, k, v as the decoder hands them over: views of one tensor."""
    qkv = torch.randn(batch, length, HEADS + 2 * KV_HEADS, CHANNELS).transpose(1, 2)
    return [part.detach().requires_grad_() for part in qkv.split([HEADS, KV_HEADS, KV_HEADS], 1)]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of one segment, by the formula."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


def gradients(y: Tensor, weight: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * weight).sum(), inputs)


@pytest.mark.parametrize(
    "rows",
    [
        ([40],),
        ([10] * 12,),
        ([1] * 9,),
        (segment_lengths(300, 20), segment_lengths(300, 3, 1), [300], [1, 299]),
    ],
    ids=["one", "equal", "single tokens", "random"],
)
def test_numbers_and_gradients_are_those_of_each_segment_alone(rows: tuple[list[int], ...]) -> None:
    q, k, v = inputs = projections(len(rows), sum(rows[0]))
    y = Attention(numbered(*rows))(0, q, k, v)
    parts = []
    for row, lengths in enumerate(rows):
        pieces = zip(*(x[row : row + 1].split(lengths, 2) for x in inputs), strict=True)
        parts.append(torch.cat([plain(*piece) for piece in pieces], 2))
    alone = torch.cat(parts)
    torch.testing.assert_close(y, alone, **CLOSE)
    weight = torch.randn_like(y)
    for actual, expected in zip(gradients(y, weight, inputs), gradients(alone, weight, inputs), strict=True):
        torch.testing.assert_close(actual, expected, **CLOSE)


def test_padding_on_either_side_and_within_is_not_seen_and_gets_zeros() -> None:
    real = torch.rand(3, 50) < 0.7
    real[2] = False
    q, k, v = inputs = projections(3, 50)
    y = Attention(numbered([20, 30], [50], [50]), real)(0, q, k, v)
    expected = torch.zeros_like(y)
    for row, span in [(0, slice(0, 20)), (0, slice(20, 50)), (1, slice(0, 50))]:
        at = torch.arange(50)[span][real[row, span]]
        expected[row : row + 1, :, at] = plain(*(x[row : row + 1, :, at] for x in inputs))
    torch.testing.assert_close(y, expected, **CLOSE)
    weight = torch.randn_like(y)
    for actual, formula in zip(gradients(y, weight, inputs), gradients(expected, weight, inputs), strict=True):
        torch.testing.assert_close(actual, formula, **CLOSE)


def test_no_number_of_a_segment_meets_another_not_even_nan() -> None:
    lengths = segment_lengths(200, 12)
    inputs = [x.detach().clone() for x in projections(1, 200)]
    attend, spans = Attention(numbered(lengths)), torch.arange(200).split(lengths)
    before = attend(0, *inputs)
    for x in inputs:
        x[:, :, spans[5]] = torch.nan
        x.requires_grad_()
    after = attend(0, *inputs)
    others = torch.cat([span for number, span in enumerate(spans) if number != 5])
    assert after[:, :, spans[5]].isnan().all() and torch.equal(after[:, :, others], before[:, :, others])
    for gradient in gradients(after, torch.ones_like(after), inputs):
        assert gradient[:, :, others].isfinite().all()


def test_a_segments_bits_do_not_depend_on_what_stands_in_the_others() -> None:
    inputs = [x.detach() for x in projections(1, 120)]
    others = [x.detach() for x in projections(1, 120)]
    for x, other in zip(inputs, others, strict=True):
        other[:, :, 30:60] = x[:, :, 30:60]
    attend = Attention(numbered([30, 30, *segment_lengths(60, 4)]))
    assert torch.equal(attend(0, *inputs)[:, :, 30:60], attend(0, *others)[:, :, 30:60])


class Counted:
    """Stands in for torch's attention, and counts what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.tokens, self.scores = 0, 0, 0
        self._real = F.scaled_dot_product_attention
        monkeypatch.setattr(F, "scaled_dot_product_attention", self)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        assert is_causal
        self.calls += 1
        self.tokens += q.shape[0] * q.shape[2]
        self.scores += q.shape[0] * q.shape[2] * k.shape[2]
        return self._real(q, k, v, is_causal=True)


@pytest.mark.parametrize("seed", range(5))
def test_a_packed_row_costs_what_its_segments_cost(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 in a window of 4,096: against one causal row, and against a call for each."""
    lengths = segment_lengths(4096, 80, seed)
    counted = Counted(monkeypatch)
    with torch.no_grad():
        Attention(numbered(lengths))(0, *projections(1, 4096))
    assert counted.tokens <= 1.1 * 4096
    assert counted.scores <= 1.2 * sum(length**2 for length in lengths) < 0.1 * 4096**2
    assert counted.calls <= 20


def test_segments_of_one_length_are_one_call_and_nothing_is_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    Attention(numbered([64] * 8))(0, *projections(1, 512))
    assert (counted.calls, counted.tokens, counted.scores) == (1, 512, 8 * 64**2)


class Reference(EndToEnd):
    """What the kernel computes, by the formula, on a CPU: there is no CUDA device here. So this tests what goes in and
    what becomes of what comes out, not the kernel."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], int, tuple[int, ...]]] = []

    def takes(self, q_NHD: Tensor) -> bool:
        return True

    def __call__(self, q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, starts: Tensor, longest: int) -> Tensor:
        assert starts.dtype == torch.int32 and {x.stride(-1) for x in (q_NHD, k_NGD, v_NGD)} == {1}
        self.calls.append((starts.tolist(), longest, tuple(q_NHD.shape)))
        pieces = zip(
            *(x.transpose(0, 1)[None].split(starts.diff().tolist(), 2) for x in (q_NHD, k_NGD, v_NGD)), strict=True
        )
        return torch.cat([plain(*piece)[0].transpose(0, 1) for piece in pieces])


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Reference:
    kernel = Reference()
    monkeypatch.setattr(attention, "KERNEL", kernel)
    return kernel


def test_segments_go_to_the_kernel_as_they_lie_where_nothing_is_padding(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = inputs = projections(2, 40)
    samples = numbered([25, 15], [40])
    y = Attention(samples)(0, q, k, v)
    monkeypatch.undo()
    rows = Attention(samples)(0, q, k, v)
    torch.testing.assert_close(y, rows, **CLOSE)
    weight = torch.randn_like(y)
    for actual, expected in zip(gradients(y, weight, inputs), gradients(rows, weight, inputs), strict=True):
        torch.testing.assert_close(actual, expected, **CLOSE)
    assert reference.calls == [([0, 25, 40, 80], 40, (80, HEADS, CHANNELS))]


def test_without_padding_nothing_is_moved_for_the_kernel(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Places:
        raise AssertionError("moved")

    monkeypatch.setattr(attention, "Places", never)
    attend = Attention(numbered([25, 15, 10]))
    for layer in range(2):
        attend(layer, *projections(1, 50))
    with pytest.raises(AssertionError, match="moved"):
        Attention(numbered([50]), torch.arange(50)[None] > 3)(0, *projections(1, 50))


def test_padding_does_not_reach_the_kernel(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.ones(2, 40, dtype=torch.bool)
    real[1, :15] = False
    q, k, v = inputs = projections(2, 40)
    samples = numbered([25, 15], [40])
    y = Attention(samples, real)(0, q, k, v)
    monkeypatch.undo()
    rows = Attention(samples, real)(0, q, k, v)
    torch.testing.assert_close(y, rows, **CLOSE)
    assert not y[1, :, :15].any()
    weight = torch.randn_like(y)
    for actual, expected in zip(gradients(y, weight, inputs), gradients(rows, weight, inputs), strict=True):
        torch.testing.assert_close(actual, expected, **CLOSE)
    assert reference.calls == [([0, 25, 40, 65], 25, (65, HEADS, CHANNELS))]


@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_of_a_mixed_batch_is_the_same_through_the_kernel(
    autocast: bool, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters bring samples into another order: the segments that the kernel is told of follow."""
    model, batch = enlivened(NANO, 2).train(), batch_of_all_kinds()

    def step() -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, _ = Objective(model)(batch)
        loss.backward()
        return loss.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    loss, actual = step()
    monkeypatch.undo()
    other, expected = step()
    close = {"atol": 0.05, "rtol": 0.05} if autocast else {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(loss, other, **({"atol": 0, "rtol": 1e-2} if autocast else close))
    for gradient, others in zip(actual, expected, strict=True):
        assert autocast or (gradient - others).abs().max() < 1e-3 * max(1.0, others.abs().max().item())
    text, image, clip, both = batch.cu_seqlens.diff().tolist()
    assert {tuple(starts) for starts, *_ in reference.calls} == {tuple(accumulate([0, image, both, clip, text]))}
    assert len(reference.calls) == NANO.text.num_hidden_layers


def test_a_device_in_half_precision_has_the_kernel_and_its_arguments_are_torchs() -> None:
    """On tensors of a CUDA device that have a shape and no numbers: the real kernel says what it would give."""
    with FakeTensorMode(), torch.device("cuda"):
        q, k, v = (
            torch.empty(1, 40, n, CHANNELS).transpose(1, 2).requires_grad_() for n in (HEADS, KV_HEADS, KV_HEADS)
        )
        kinds = (torch.bfloat16, torch.float16, torch.float32)
        assert [KERNEL.takes(q[0].to(kind)) for kind in kinds] == [True, True, False]
        assert [attention._shares_keys(q.to(kind)) for kind in kinds] == [True, True, False]
        with torch.no_grad():
            assert not attention._shares_keys(q.bfloat16()), "gates and generation are as they were measured"
        flat = [x.transpose(1, 2)[0].bfloat16() for x in (q, k, v)]
        y = KERNEL(*flat, torch.empty(4, dtype=torch.int32), 25)
        assert y.shape == (40, HEADS, CHANNELS) and y.dtype == torch.bfloat16 and y.requires_grad
    assert not KERNEL.takes(torch.empty(3, HEADS, CHANNELS, dtype=torch.bfloat16))


def test_keys_are_shared_by_torchs_own_attention_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = projections(2, 9)
    repeated = Attention()(0, *inputs)
    monkeypatch.setattr(attention, "_shares_keys", lambda q: True)
    torch.testing.assert_close(Attention()(0, *inputs), repeated, **CLOSE)


def test_moving_tokens_has_the_gradient_of_the_move_twice_over() -> None:
    places = Places(torch.tensor([3, -1, 0, 1, -1]), 5, torch.device("cpu"))
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert places.fill(x)[:, 0].tolist() == [x[3, 0], 0, x[0, 0], x[1, 0], 0]
    kept = torch.tensor([True, True, False, True, False])[:, None]
    assert torch.equal(places.empty(places.fill(x)), x * kept)
    for move in (places.fill, places.empty):
        assert torch.autograd.gradcheck(move, x) and torch.autograd.gradgradcheck(move, x)
