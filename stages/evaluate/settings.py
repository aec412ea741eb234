"""How answers are written, and where the model that writes them is."""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.lake.store.objects import ObjectRef

PAGE = 128
"""Tokens of a page of the engine's cache."""


@dataclass(frozen=True)
class Generate:
    """`max_tokens` of an answer; `context`: tokens of prompt and answer together, whole pages of 128: a longer prompt
    is not asked. `temperature` 0: greedy; above, `seed` decides what is drawn."""

    max_tokens: int = 512
    context: int = 4096
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens < self.context:
            raise ValueError(f"max_tokens={self.max_tokens}: allowed are 1 to less than context={self.context}")
        if self.context % PAGE:
            raise ValueError(f"context={self.context}: whole pages of {PAGE} tokens")
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature={self.temperature}: allowed is 0 to 100")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: 0 or more")


@dataclass(frozen=True)
class Where:
    """Where the model is and where it runs, which decides nothing. `model`: its version; `tokenizer`: the object.
    `max_num_seqs`: answers written side by side; `pass_tokens`: tokens scored at a time."""

    model: str
    tokenizer: ObjectRef
    device: str = "cpu"
    cpus: float = 1
    gpus: float = 0
    max_num_seqs: int = 16
    pass_tokens: int = 8192
