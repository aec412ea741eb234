"""A linear with its adapters as training has it: one operation over stretches of tokens, against the plain formula."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import ADAPTERS, NANO, batch_of_all_kinds, enlivened, ids, text_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gristmill.model.phi4 import routing
from gristmill.model.phi4.blocks import compile_blocks
from gristmill.model.phi4.lora import MultiLoRALinear, Routes, Span
from gristmill.model.train.objective import Objective

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENS, INPUTS, OUTPUTS = 12, 10, 7
MIXED: Routes = {"vision": Span(0, 5), "speech": Span(5, 9)}
ALL: Routes = {"vision": None}


def linear(kind: torch.dtype = torch.float64, train: bool = False) -> MultiLoRALinear:
    torch.manual_seed(0)
    layer = MultiLoRALinear(INPUTS, OUTPUTS, ADAPTERS).train(train)
    for lora in layer.adapters.values():
        torch.nn.init.normal_(lora.B)
    return layer.to(kind)


def by_formula(layer: MultiLoRALinear, x: Tensor, routes: Routes) -> Tensor:
    """Wx and, of each adapter's tokens, s B(Ax)."""
    y, flat = x @ layer.weight.T, x.flatten(0, 1)
    for name, span in routes.items():
        assert not isinstance(span, Tensor)
        start, stop = span or (0, len(flat))
        lora = layer.adapters[name]
        added = lora.scaling * (flat[start:stop] @ lora.A.T) @ lora.B.T
        y = y + torch.nn.functional.pad(added, (0, 0, start, len(flat) - stop)).view_as(y)
    return y


def gradients(y: Tensor, x: Tensor, layer: MultiLoRALinear) -> dict[str, Tensor]:
    wanted = {name: each for name, each in {"x": x, **dict(layer.named_parameters())}.items() if each.requires_grad}
    pulled = torch.autograd.grad(
        (y * torch.arange(1.0, 1 + y.numel()).view_as(y)).sum(), list(wanted.values()), None, True, allow_unused=True
    )
    return {name: gradient for name, gradient in zip(wanted, pulled, strict=True) if gradient is not None}


@pytest.mark.parametrize("routes", [MIXED, ALL, {"speech": Span(0, 3)}], ids=["mixed", "all", "some-of-one"])
@pytest.mark.parametrize(
    "frozen",
    [(), ("weight",), ("weight", "x"), ("adapters",), ("adapters", "x"), ("weight", "adapters"), ("A",), ("B",)],
    ids=lambda names: " ".join(names) or "nothing",
)
def test_numbers_and_gradients_are_those_of_the_formula_whatever_is_frozen(
    frozen: tuple[str, ...], routes: Routes
) -> None:
    layer = linear()
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(not any(part in name.split(".") for part in frozen))
    x = torch.randn(2, TOKENS // 2, INPUTS, dtype=torch.float64, requires_grad="x" not in frozen)
    y, formula = layer(x, routes), by_formula(layer, x, routes)
    torch.testing.assert_close(y, formula)
    actual, expected = gradients(y, x, layer), gradients(formula, x, layer)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, routes), formula)


class Seen(TorchDispatchMode):
    """Notes operators that do something, and what they make."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not func.is_view and (tensors := [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]):
            self.names.append(func._overloadpacket.__name__)
            self.tensors += tensors
        return output


def kept(run: Callable[[], Tensor]) -> list[Tensor]:
    """What the backward pass keeps, each memory once."""
    tensors: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        tensors.setdefault(tensor.data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return list(tensors.values())


def test_what_backward_keeps_is_x_and_a_few_channels_a_token() -> None:
    layer = linear(torch.float32)
    layer.weight.requires_grad_(False)
    x = torch.randn(1, TOKENS, INPUTS, requires_grad=True)
    known = {tensor.data_ptr() for tensor in (x, *layer.parameters())}
    others = [tensor.shape for tensor in kept(lambda: layer(x, MIXED)) if tensor.data_ptr() not in known]
    assert others == [(5, 4), (4, 3)], "tokens and rank of each adapter"
    layer.requires_grad_(False)
    assert not [t for t in kept(lambda: layer(x, MIXED)) if t.data_ptr() not in known or t.data_ptr() == x.data_ptr()]


def test_nothing_is_gathered_copied_or_scaled_for_itself() -> None:
    layer, x = linear(torch.float32), torch.randn(1, TOKENS, INPUTS, requires_grad=True)
    layer.weight.requires_grad_(False)
    wanted = [x, *layer.adapters.parameters()]
    pulled = torch.ones(1, TOKENS, OUTPUTS)
    with Seen() as seen:
        torch.autograd.grad(layer(x, MIXED), wanted, pulled)
    # forward: y, and h and the sum of each adapter; backward: dx, and dh, dA, dB and the sum of each
    products = {"mm": 1 + 2 + 1 + 2, "addmm": 2 * 2, "addmm_": 2 + 2}
    assert Counter(name for name in seen.names if name != "new_zeros") == products


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16], ids=str)
def test_under_autocast_no_wide_tensor_is_float32(base: torch.dtype) -> None:
    layer = linear(torch.float32)
    layer.weight.data = layer.weight.data.to(base)
    layer.weight.requires_grad_(False)
    x = torch.randn(1, 200, INPUTS, dtype=base, requires_grad=True)
    half = x.detach().bfloat16().requires_grad_()
    rounded = linear(torch.bfloat16)
    formula = by_formula(rounded, half, MIXED)
    with torch.autocast("cpu", torch.bfloat16), Seen() as seen:
        y = layer(x, MIXED)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, formula, atol=0.05, rtol=0.02)
    wanted, others = [x, *layer.adapters.parameters()], [half, *rounded.adapters.parameters()]
    with seen:
        actual = torch.autograd.grad(y, wanted, torch.ones_like(y))
    for gradient, other, tensor in zip(actual, torch.autograd.grad(formula.sum(), others), wanted, strict=True):
        assert gradient.dtype == tensor.dtype
        torch.testing.assert_close(gradient, other.to(gradient.dtype), atol=0.1, rtol=0.05)
    wide = [tensor.shape for tensor in seen.tensors if tensor.dtype == torch.float32 and tensor.numel() > 200 * 5]
    assert wide == [(200, INPUTS)] * (base == torch.float32), "autograd gives x its gradient in the type of x"


def test_dropout_is_drawn_over_the_adapters_tokens_and_is_the_same_backward() -> None:
    layer = linear(torch.float32, train=True)
    x = torch.randn(1, TOKENS, INPUTS, requires_grad=True)
    lora = layer.adapters["speech"]  # p = .5
    torch.manual_seed(7)
    y = layer(x, {"speech": Span(2, 9)})
    torch.manual_seed(7)
    dropped, _ = torch.native_dropout(x[0, 2:9], 0.5, True)
    formula = x @ layer.weight.T
    formula = torch.cat(
        [formula[:, :2], formula[:, 2:9] + lora.scaling * (dropped @ lora.A.T) @ lora.B.T, formula[:, 9:]], 1
    )
    assert (dropped == 0).any() and (dropped != 0).any()
    torch.testing.assert_close(y, formula)
    actual, expected = gradients(y, x, layer), gradients(formula, x, layer)
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, msg=name)


# The order of a batch.


def masks_of(*takers: str | None) -> dict[str, Tensor]:
    """Of one row of samples of three tokens each."""
    row = [taker for taker in takers for _ in range(3)]
    return {name: torch.tensor([[taker == name for taker in row]]) for name in ("vision", "speech")}


def test_samples_of_one_adapter_come_to_lie_side_by_side_and_text_behind_them() -> None:
    order, routes = routing.side_by_side(masks_of(None, "speech", "vision", None, "vision", "speech"))
    assert order is not None
    samples = [2, 4, 1, 5, 0, 3]
    assert order.tolist() == [3 * sample + place for sample in samples for place in range(3)]
    assert routes == {"vision": (0, 6), "speech": (6, 12)}


@pytest.mark.parametrize(
    ("takers", "routes"),
    [
        ((None, None), {}),
        (("vision", "vision"), {"vision": None}),
        (("speech", None, None), {"speech": (0, 3)}),
        (("vision", "speech"), {"vision": (0, 3), "speech": (3, 6)}),
    ],
)
def test_a_batch_that_lies_so_is_left_as_it_lies(takers: tuple[str | None, ...], routes: Any) -> None:
    assert routing.side_by_side(masks_of(*takers)) == (None, routes)


def test_a_model_without_adapters_has_no_order() -> None:
    assert routing.side_by_side({}) == (None, {})


def test_a_mixed_batch_of_all_kinds_is_moved_twice_and_no_linear_gathers() -> None:
    def moves(layers: int) -> int:
        model = text_model(num_hidden_layers=layers).train()
        with Seen() as seen:
            loss = model(ids(4, 12), adapter=["vision", None, "speech", "vision"]).logits.sum()
            loss.backward()
        return sum(name in ("index_select", "index_copy", "index_copy_", "index_add", "index") for name in seen.names)

    # attention of a layer gathers its q, k, v and puts y back, forward and backward; an adapter nothing
    assert moves(3) - moves(2) == moves(2) - moves(1) == 8


@pytest.mark.parametrize("adapter", ["auto", "token"])
def test_losses_and_gradients_of_a_mixed_batch_are_those_of_masks(
    adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the operations of generation, which choose among the results of all tokens."""
    model, batch = enlivened(NANO, 1).eval(), batch_of_all_kinds()

    def step() -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        loss, _ = Objective(model, adapter=adapter)(batch)
        loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    loss, actual = step()
    calls = []

    def by_masks(masks: dict[str, Tensor]) -> Any:
        calls.append(len(masks))
        return (None, masks) if adapter == "auto" else masks

    monkeypatch.setattr(
        "gristmill.model.phi4.multimodal." + ("side_by_side" if adapter == "auto" else "routes"), by_masks
    )
    other, expected = step()
    assert calls == [2]
    torch.testing.assert_close(loss, other, atol=1e-3, rtol=1e-5)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            actual[name], gradient, atol=2e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16", "autocast"])
def test_text_in_a_pass_of_training_is_the_base_models_to_the_bit(compiled: bool, autocast: bool) -> None:
    """In bfloat16, though other samples of the batch take adapters and stand elsewhere in the decoder."""
    torch._dynamo.reset()
    model = text_model(num_hidden_layers=2).train()
    if not autocast:
        model.bfloat16()
    rows = [None, "speech", None, "vision", None]
    if compiled:
        compile_blocks(model, "aot_eager")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mixed, base = (model.hidden(ids(5, 12), adapter=adapter) for adapter in (rows, None))
    assert mixed.requires_grad
    text = [number for number, row in enumerate(rows) if row is None]
    assert torch.equal(mixed[text], base[text])
    assert not torch.equal(mixed[1], base[1]) and not torch.equal(mixed[3], base[3])
    torch._dynamo.reset()
