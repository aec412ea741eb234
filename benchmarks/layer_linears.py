"""What do adapters cost the four linears of a layer, forward and backward, against the arithmetic of it?

At the shape of Phi-4-Mini, 8,192 tokens, rank 320, the base frozen in bfloat16 and adapters in float32 under autocast,
as in training: without an adapter, with one on all tokens, and with two on half of the tokens each. In turns; a ratio
is taken within a round. By arithmetic a weight of the base costs 4 operations a token, one of an adapter 6
(`train_arms.flops_a_token`). A part of `python -m benchmarks gpu`, which says what `tiny` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from benchmarks.harness import Differ, Row, figure
from benchmarks.on_device import device_of, plain, scaled, settle
from benchmarks.section import Deadline
from gristmill.model.phi4.config import LoraConfig, TextConfig
from gristmill.model.phi4.lora import LoRA, MultiLoRALinear, Routes
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.phi4.routing import side_by_side

ROUNDS, REPEATS = 5, 5
PLAIN, ALONE, HALVES = "no adapter", "one adapter on all tokens", "two adapters on half each"


def linears_of(text: TextConfig, adapters: tuple[LoraConfig, ...], device: torch.device) -> nn.ModuleList:
    """The four of a layer, frozen in bfloat16; adapters in float32, B too with values, so that it is no product with
    zeros."""
    fused = (text.num_attention_heads + 2 * text.num_key_value_heads) * text.head_dim
    hidden, inner = text.hidden_size, text.intermediate_size
    shapes = ((hidden, fused), (hidden, hidden), (hidden, 2 * inner), (inner, hidden))
    with torch.device(device):
        linears = nn.ModuleList(MultiLoRALinear(inputs, outputs, adapters) for inputs, outputs in shapes)
    for name, parameter in linears.named_parameters():
        if name.endswith(".weight"):
            parameter.data = parameter.data.to(torch.bfloat16)
            parameter.requires_grad_(False)
        elif name.endswith(".B"):
            nn.init.normal_(parameter, std=0.02)
    return linears


def forward_backward(linears: nn.ModuleList, inputs: list[Tensor], routes: Routes) -> Callable[[], None]:
    """A pass of all four, each on its own input."""
    outputs = [linear.weight.shape[0] for linear in linears if isinstance(linear, MultiLoRALinear)]
    upwards = [
        torch.randn(*x.shape[:-1], width, device=x.device).to(x.dtype) for x, width in zip(inputs, outputs, strict=True)
    ]

    def run() -> None:
        for linear, x, upward in zip(linears, inputs, upwards, strict=True):
            with torch.autocast(x.device.type, torch.bfloat16):
                y = linear(x, routes)
            y.backward(upward)
            x.grad = None
        for parameter in linears.parameters():
            parameter.grad = None

    return run


def routes_of(masks: Mapping[str, Tensor]) -> Routes:
    """As a batch of training has them, whose samples of one adapter lie side by side. `masks`: of each adapter the
    tokens that take it, bool [1, T], on the CPU."""
    order_T, routes = side_by_side(masks)
    assert order_T is None  # they lie so already
    return routes


def check(linears: nn.ModuleList, x: Tensor, masks: Mapping[str, Tensor], routes: Routes) -> None:
    """Raises Differ where the output of the first linear is not the sum of its products, each computed apart in
    float32."""
    linear = linears[0]
    assert isinstance(linear, MultiLoRALinear)
    with torch.autocast(x.device.type, torch.bfloat16):
        result = linear(x, routes).detach().float()
    with torch.no_grad():
        wide = x.float()
        expected = wide @ linear.weight.float().T
        for name, mask in masks.items():
            adapter = linear.adapters[name]
            assert isinstance(adapter, LoRA)
            expected += mask.to(x.device)[..., None] * (wide @ adapter.A.T @ adapter.B.T) * adapter.scaling
    apart = ((result - expected).norm() / expected.norm()).item()
    if not apart < 0.02:
        raise Differ(f"linears with {' and '.join(routes) or 'no adapter'}: {apart:.3g} from what they should be")


def rows(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """Times of the three, and two ratios beside those by arithmetic."""
    device, text = device_of(tiny), PRESETS["nano" if tiny else "mini"].text
    rank, tokens = (8, 64) if tiny else (320, 8192)
    adapters = tuple(LoraConfig(name, rank, 2.0 * rank) for name in ("vision", "speech"))
    linears = linears_of(text, adapters, device)
    widths = [linear.weight.shape[1] for linear in linears if isinstance(linear, MultiLoRALinear)]
    inputs = [
        torch.randn(1, tokens, width, dtype=torch.bfloat16, device=device, requires_grad=True) for width in widths
    ]
    first = (torch.arange(tokens) < tokens // 2)[None]
    masks = {PLAIN: {}, ALONE: {"speech": torch.ones_like(first)}, HALVES: {"vision": first, "speech": ~first}}
    passes: dict[str, Callable[[], None]] = {}
    for name, of_pass in masks.items():
        routes = routes_of(of_pass)
        check(linears, inputs[0], of_pass, routes)
        passes[name] = forward_backward(linears, inputs, routes)
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for run in passes.values():  # kernels are loaded
        run()
    for _ in deadline.rounds(1 if tiny else ROUNDS):
        for name, run in passes.items():
            settle(device)
            started = time.perf_counter()
            for _ in range(REPEATS):
                run()
            settle(device)
            seconds[name].append((time.perf_counter() - started) / REPEATS)
    base = sum(linear.weight.numel() for linear in linears if isinstance(linear, MultiLoRALinear))
    added = sum(parameter.numel() for name, parameter in linears.named_parameters() if ".speech." in name)
    for name, times in seconds.items():
        yield Row(f"a layer's linears, {name}", scaled(figure(times), 1e3), "ms", "result")
    for name in (ALONE, HALVES):
        times = [a / b for a, b in zip(seconds[name], seconds[PLAIN], strict=True)]
        yield Row(f"a layer's linears, {name}: over those with none", figure(times), "x")
    yield Row("the same by arithmetic", plain((4 * base + 6 * added) / (4 * base)), "x")
