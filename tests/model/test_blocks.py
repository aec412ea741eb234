"""The switches of a stack, checkpointing and compiling: the same loss and gradients, at another cost."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from models import NANO, batch_of_all_kinds, enlivened, ids, text_model
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from gristmill.model.phi4.blocks import Stack, checkpoint_activations, compile_blocks, stacks
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.train.objective import Batch, Objective

pytestmark = pytest.mark.usefixtures("one_thread")


def step(model: Multimodal, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, with dropout by a fixed seed, and all gradients."""
    model.zero_grad()
    torch.manual_seed(0)
    loss, _ = Objective(model)(batch)
    loss.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return loss.detach(), gradients


def texts(*lengths: int) -> Batch:
    ends = torch.tensor([0, *itertools.accumulate(lengths)])
    return Batch(ids(sum(lengths), seed=len(lengths)), torch.ones(sum(lengths), dtype=torch.bool), ends)


def runs(model: Multimodal) -> Counter[str]:
    """Counts how often each block is computed, from now on."""
    count: Counter[str] = Counter()
    for name, stack in model.named_modules():
        if isinstance(stack, Stack):
            for number, block in enumerate(stack):
                block.register_forward_pre_hook(lambda *_, key=f"{name}.{number}": count.update([key]))
    return count


def test_decoder_and_encoders_have_the_switch() -> None:
    model = enlivened(NANO, 0)
    assert len(stacks(model)) == 3
    checkpoint_activations(model.vision_encoder)
    assert [stack.recomputed for stack in stacks(model)] == [0, 1, 0]
    checkpoint_activations(model)
    assert all(stack.recomputed == 1 for stack in stacks(model))
    checkpoint_activations(model, 0)
    assert not any(stack.recomputed for stack in stacks(model))


@pytest.mark.parametrize(
    ("share", "numbers"), [(0, []), (0.25, [3]), (1 / 3, [3]), (0.5, [1, 3]), (0.75, [1, 2, 3]), (1, [0, 1, 2, 3])]
)
def test_a_share_of_the_blocks_is_recomputed_evenly_and_the_bits_stay(share: float, numbers: list[int]) -> None:
    model, batch = text_model(num_hidden_layers=4).train(), texts(7, 12)
    loss, gradients = step(model, batch)
    checkpoint_activations(model, share)
    count = runs(model)
    again, others = step(model, batch)
    assert [number for number in range(4) if count[f"language.layers.{number}"] == 2] == numbers
    assert set(count.values()) <= {1, 2} and len(count) == 4
    assert torch.equal(again, loss) and gradients.keys() == others.keys()
    assert all(torch.equal(others[name], gradient) for name, gradient in gradients.items())


def test_checkpointing_computes_each_block_twice_and_the_same_to_the_bit() -> None:
    """Dropout of the adapters included, which is drawn again as it was."""
    model, batch = enlivened(NANO, 2).train(), batch_of_all_kinds()
    loss, gradients = step(model, batch)
    checkpoint_activations(model)
    count = runs(model)
    again, others = step(model, batch)
    assert torch.equal(again, loss) and gradients.keys() == others.keys()
    assert all(torch.equal(others[name], gradient) for name, gradient in gradients.items())
    assert set(count.values()) == {2} and len(count) == 4 + 2 + 2, "the vision encoder's last layer is not used"


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    model, batch = text_model().train(), texts(30, 40)

    def kept() -> int:
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.setdefault(x.data_ptr(), x.numel()) and x, _same):
            Objective(model)(batch)
        return sum(sizes.values()) - sum(parameter.numel() for parameter in model.parameters())

    before = kept()
    checkpoint_activations(model)
    assert kept() < 0.2 * before


def _same(x: Tensor) -> Tensor:
    return x


@torch.no_grad()
def test_without_gradients_nothing_is_switched() -> None:
    def never(*_: object) -> Callable[..., object]:
        raise AssertionError("compiled")

    model, rows = text_model().train(), ids(2, 9)
    expected = model.eval()(rows).logits
    checkpoint_activations(model)
    compile_blocks(model, never)
    assert torch.equal(model(rows).logits, expected)


def test_compiled_blocks_compute_the_same_and_are_compiled_once_for_all_batches() -> None:
    """By the backend that runs what was traced as it is: the default one would take a minute to say the same."""
    torch._dynamo.reset()
    model, counter = text_model(adapters=()).train(), CompileCounterWithBackend("eager")
    batches = [texts(30, 40), texts(5, 5, 5, 50)]
    expected = [step(model, batch) for batch in batches]
    compile_blocks(model, counter)
    seen = []
    for batch, (loss, gradients) in zip([*batches, texts(8, 90, 1)], [*expected, (None, {})], strict=True):
        compiled_loss, others = step(model, batch)
        seen.append(counter.frame_count)
        if loss is not None:
            torch.testing.assert_close(compiled_loss, loss, atol=1e-3, rtol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(others[name], gradient, atol=1e-4, rtol=1e-4, msg=name)
    assert seen[0] > 0 and seen[1] == seen[-1], f"graphs after each batch: {seen}"
    torch._dynamo.reset()


Row = list[str | None]


def mixed(model: Multimodal, rows: Row) -> None:
    model.zero_grad()
    model.hidden(ids(len(rows), 12), adapter=rows).square().mean().backward()


def test_adapters_break_no_graph_and_batches_of_other_lengths_compile_nothing() -> None:
    """A decoder's block is two graphs, before and after attention; a set of adapters that a batch takes has its own,
    and where tokens turn out to differ from batch to batch another, for any number of them."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, counter = text_model(num_hidden_layers=2).train(), CompileCounterWithBackend("eager")
    compile_blocks(model, counter)
    both: list[Row] = [
        ["vision", None, "speech"],
        ["speech", None, "vision", "vision"],
        [None] * 4 + ["vision", "speech"],
    ]
    graphs = []
    for rows in both:
        mixed(model, rows)
        graphs.append(counter.frame_count)
    # by lengths; then for all lengths, of the first layer, whose input is a view of the batch, and of the others
    assert graphs == [2, 6, 6]
    for rows in ([None] * 3, [None] * 4, *both):
        mixed(model, rows)
    assert counter.frame_count == 8, "text alone: two more, for any number of tokens"
    assert not torch._dynamo.utils.counters["graph_break"]
    torch._dynamo.reset()


def test_both_switches_go_together_with_adapters_and_come_off() -> None:
    torch._dynamo.reset()
    model, rows = text_model(num_hidden_layers=1).train(), ids(3, 12)
    names = list(model.state_dict())

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        torch.manual_seed(0)  # the dropout of an adapter
        model(rows, adapter=["vision", None, "speech"]).logits.square().mean().backward()
        return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}

    expected = gradients()
    compile_blocks(model, "aot_eager")
    checkpoint_activations(model)
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)
    compile_blocks(model, None)
    checkpoint_activations(model, 0)
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients().items())
    assert list(model.state_dict()) == names
    torch._dynamo.reset()
