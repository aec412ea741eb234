"""The four linears of a decoder's layer with their adapters, forward and backward: what adapters add to plain products.

Three arms, on the same tokens: no adapter, an adapter on all tokens, two adapters on half of the tokens each; weights
frozen and adapters trained, as in a stage that trains them. `python -m benchmarks.layer_linears` prints the ratios of
CPU seconds at a width where products dominate; other benchmarks take the shapes of the release, and a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from gristmill.model.phi4.config import LoraConfig, TextConfig
from gristmill.model.phi4.lora import LoRA, MultiLoRALinear, Routes, Span

NAMES = ("vision", "speech")


class LayerLinears:
    """The linears of a layer of `config`, each on tokens of its own: normal numbers. Adapters are float32 and their B
    is not zero; `base`: the type of the weights and of what goes in."""

    def __init__(
        self,
        config: TextConfig,
        *,
        rank: int,
        tokens: int,
        device: torch.device | str = "cpu",
        base: torch.dtype = torch.float32,
    ) -> None:
        heads = config.num_attention_heads + 2 * config.num_key_value_heads
        hidden, inner = config.hidden_size, config.intermediate_size
        self.shapes = (
            (hidden, heads * config.head_dim),
            (hidden, hidden),
            (hidden, 2 * inner),
            (inner, hidden),
        )
        self.tokens, self.rank = tokens, rank
        adapters = [LoraConfig(name, rank, 2.0 * rank) for name in NAMES]
        self._linears = [MultiLoRALinear(*shape, adapters).to(device) for shape in self.shapes]
        for linear in self._linears:
            linear.weight.requires_grad_(False)
            linear.weight.data = linear.weight.data.to(base)
            for lora in linear.adapters.values():
                assert isinstance(lora, LoRA)
                torch.nn.init.normal_(lora.B, std=0.02)
        self._inputs = [
            torch.randn(1, tokens, shape[0], device=device, dtype=base, requires_grad=True) for shape in self.shapes
        ]
        self._pulls = [torch.ones(1, tokens, shape[1], device=device, dtype=base) for shape in self.shapes]

    def arms(self) -> Mapping[str, Routes]:
        """What is compared, by its name: which tokens take which adapter."""
        half = self.tokens // 2
        return {
            "plain": {},
            "one adapter": {"vision": None},
            "two adapters": {"vision": Span(0, half), "speech": Span(half, self.tokens)},
        }

    def step(self, routes: Routes) -> None:
        """Forward and backward pass of the four. In bfloat16: under autocast, as a stage has it."""
        for linear, x_1TI, dy_1TO in zip(self._linears, self._inputs, self._pulls, strict=True):
            with torch.autocast(x_1TI.device.type, torch.bfloat16, enabled=x_1TI.dtype == torch.bfloat16):
                y_1TO = linear(x_1TI, routes)
            # Not added to what was there before: that would be a pass over x of its own.
            adapters = [linear.adapters[name] for name in routes]
            wanted = [x_1TI, *(each for adapter in adapters for each in adapter.parameters())]
            torch.autograd.grad(y_1TO, wanted, dy_1TO)

    def flops(self, arm: str) -> float:
        """Multiplications and additions of a step: of frozen weights y and dx, of adapters h, sum, dh, dx, dA, dB.
        Half of the tokens with each of two adapters cost what all with one do."""
        plain = sum(4.0 * inputs * outputs for inputs, outputs in self.shapes)
        added = sum(6.0 * self.rank * (inputs + outputs) for inputs, outputs in self.shapes)
        return self.tokens * (plain if arm == "plain" else plain + added)


def seconds(linears: LayerLinears, rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Of a step of each arm by a clock, the middle one of so many rounds in which the arms take turns."""
    arms = linears.arms()
    taken: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(rounds + 1):
        for arm, routes in arms.items():
            start = clock()
            linears.step(routes)
            if turn:  # the first is not counted
                taken[arm].append(clock() - start)
    return {arm: statistics.median(values) for arm, values in taken.items()}


def main() -> None:
    """Prints what adapters cost, measured and by arithmetic."""
    torch.set_num_threads(1)
    config = TextConfig(
        hidden_size=1024,
        intermediate_size=2048,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_hidden_layers=1,
    )
    linears = LayerLinears(config, rank=64, tokens=1024)
    taken = seconds(linears, rounds=5)
    for arm, each in taken.items():
        arithmetic = linears.flops(arm) / linears.flops("plain")
        print(f"{arm}: {each:.3f} CPU-s, {each / taken['plain']:.2f} times plain; by arithmetic {arithmetic:.2f}")


if __name__ == "__main__":
    main()
