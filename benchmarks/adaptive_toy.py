"""A small model that learned to solve word problems for some seconds, and the samples that it draws of new ones.

Stories of one to three steps; a chain may name the numbers of a sum in either order and begin a step in several ways,
so that a problem has up to some hundred right chains, or, where `varied` is False, one. The engine is the project's
own, and chains are judged by the verifiers of the pipeline: the answer and every step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.synth.sampling import Judged
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.steps.check import Steps
from gristmill.synth.verify.verdict import AllOf, Outcome, Problem

_NAMES = [f"{name} has " for name in ("ana", "ben", "cleo", "dan", "eva")]
_MANY = [f" {many} . " for many in ("books", "eggs", "shells", "stamps")]
_MORE = ("finds ", "buys ", "is given ")
_LESS = ("loses ", "sells ", "gives away ")
_TIMES, _END, _BEGIN = "then has so many times ", "<end>", "<begin>"
_STARTS = ("", "now ", "so ", "then ")
_PIECES = [_END, _BEGIN, *"0123456789", *_NAMES, *_MANY, *_MORE, *_LESS, _TIMES, " . ", " ; ", " = ", " #### "]
_PIECES += [" + ", " - ", " * ", *filter(None, _STARTS)]
_NUMBERS = {piece: number for number, piece in enumerate(_PIECES)}
_MOST_TOKENS, _WIDTH = 72, 128


class Story(NamedTuple):
    """A question and a chain that solves it, as tokens, with the answer."""

    question: tuple[int, ...]
    chain: tuple[int, ...]
    answer: int


def story(draw: random.Random, varied: bool) -> Story:
    """One that comes out: results from 2 to 99."""
    while (tale := _story(draw, varied)) is None:
        pass
    return tale


def _story(draw: random.Random, varied: bool) -> Story | None:
    have = draw.randint(3, 20)
    question, chain = [_BEGIN, draw.choice(_NAMES), *str(have), draw.choice(_MANY)], list[str]()
    for step in range(draw.randint(1, 3)):
        sign = draw.choice("++-*")
        other = draw.randint(2, 3 if sign == "*" else 12)
        before, have = have, {"+": have + other, "-": have - other, "*": have * other}[sign]
        if not 2 <= have <= 99:
            return None
        question += [{"+": draw.choice(_MORE), "-": draw.choice(_LESS), "*": _TIMES}[sign], *str(other), " . "]
        sides = [str(before), str(other)]
        if varied and sign != "-" and draw.random() < 0.4:
            sides.reverse()
        start = draw.choice(_STARTS) if varied else ""
        chain += [" ; "] * (step > 0) + [start] * bool(start)
        chain += [*sides[0], f" {sign} ", *sides[1], " = ", *str(have)]
    chain += [" #### ", *str(have), _END]
    return Story(tuple(_NUMBERS[piece] for piece in question), tuple(_NUMBERS[piece] for piece in chain), have)


def text(tokens: Sequence[int]) -> str:
    """What they say."""
    return "".join(_PIECES[token] for token in tokens if token > 1)


def trained(seed: int, varied: bool, steps: int) -> Multimodal:
    """A model after `steps` batches of 48 stories."""
    language = replace(PRESETS["nano"].text, vocab_size=len(_PIECES), eos_token_id=(0,), num_hidden_layers=3)
    model, draw = Multimodal.seeded(ModelConfig(language), seed), random.Random(f"train {seed}")
    step = stepping(model, steps)
    for _ in range(steps):
        ids, targets = _batch([story(draw, varied) for _ in range(48)])
        cross_entropy(model(ids).logits.flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
        step()
    return model.eval()


def stepping(model: Multimodal, steps: int) -> Callable[[], None]:
    """What is called after each `backward`, `steps` times: Muon for matrices, AdamW for the rest."""
    inner = {name: p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name}
    others = [p for name, p in model.named_parameters() if name not in inner]
    rates = {torch.optim.Muon(inner.values(), lr=0.02, weight_decay=0.0): 0.02, torch.optim.AdamW(others): 4e-3}
    numbers = count()

    def step() -> None:
        number = next(numbers)
        for optimizer, rate in rates.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (number + 1) / 20, (steps - number) / (0.5 * steps))
            optimizer.step()
            optimizer.zero_grad()

    return step


def _batch(stories: Sequence[Story]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and what follows each of a chain, `-100` elsewhere."""
    longest = max(len(tale.question) + len(tale.chain) for tale in stories)
    ids = torch.zeros(len(stories), longest, dtype=torch.long)
    targets = torch.full_like(ids, -100)
    for row, tale in enumerate(stories):
        first, end = len(tale.question), len(tale.question) + len(tale.chain)
        ids[row, :end] = torch.tensor(tale.question + tale.chain)
        targets[row, first - 1 : end - 1] = torch.tensor(tale.chain)
    return ids, targets


def sampled(model: Multimodal, seed: int, varied: bool, problems: int, each: int) -> list[list[tuple[Judged, int]]]:
    """The first `each` samples of so many new problems, judged, with their tokens."""
    draw = random.Random(f"pose {seed}")
    posed = {str(place): story(draw, varied) for place in range(problems)}
    sampling = Sampling(max_tokens=_MOST_TOKENS)
    requests = [Request(key, problem.question, sampling, n=each) for key, problem in posed.items()]
    samples: dict[str, dict[int, tuple[Judged, int]]] = {key: {} for key in posed}
    verifier = AllOf((Maths(), Steps()))
    for completion in Engine(model, Options(64, _WIDTH, block_size=32)).run(requests):
        key, chain = completion.request.key, text(completion.tokens)
        outcome: Outcome = "rejected"
        if completion.finish_reason == "stop":
            outcome = verifier.verify(Problem("maths", "", str(posed[key].answer)), chain).outcome
        samples[key][completion.number] = Judged.of(outcome, chain), len(completion.tokens)
    return [list(_in_order(samples[key])) for key in posed]


def _in_order(samples: dict[int, tuple[Judged, int]]) -> Iterator[tuple[Judged, int]]:
    for number in range(len(samples)):
        yield samples[number]
