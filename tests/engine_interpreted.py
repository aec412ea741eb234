"""The engine with its kernels, launched one by one, on the CPU by Triton's interpreter: a process of its own, with
TRITON_INTERPRET=1 before Triton is imported. Prints, of each completion, its tokens and their log-probabilities."""

from __future__ import annotations

import json
from typing import Any

import torch
from models import switching_at, text_model, words

import gristmill.model.generate.engine
from gristmill.model.generate import kernels
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.forward import DeviceSide
from gristmill.model.generate.graphs import Runner
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.multimodal import Multimodal

OPTIONS = Options(max_num_seqs=4, max_model_len=64, max_num_partial_prefills=4, prefill_chunk_size=16, block_size=16)
Outcome = dict[str, tuple[list[int], list[float]]]


def model() -> Multimodal:
    """Of heads that kernels can do; LongRoPE switches after 32 tokens."""
    shape: dict[str, Any] = {"hidden_size": 192, "num_hidden_layers": 2}
    return text_model(**shape, **switching_at(32, 12))


def requests() -> list[Request]:
    """A few of each kind: the interpreter takes its time."""
    how = Sampling(max_tokens=3, temperature=1.3, top_p=0.95, ignore_eos=True, logprobs=0)
    names = (None, "speech", "vision")
    sampled = [Request(f"{n}", words(n, n), how, adapter=names[n % 3]) for n in (1, 31)]
    return [*sampled, Request("greedy", words(33, 1), Sampling(3, 0.0, ignore_eos=True, logprobs=0))]


def outcome() -> Outcome:
    """Of all requests."""
    completions = Engine(model(), OPTIONS).run(requests())
    return {f"{c.request.key} {c.number}": (c.tokens, c.logprobs) for c in completions}


if __name__ == "__main__":
    torch.set_num_threads(1)
    side: Any = DeviceSide(kernels, Runner())  # a tape records torch's operations alone
    gristmill.model.generate.engine.device_side = lambda model, options: side
    print(json.dumps(outcome()))
