"""The texts of a version's records as people would read them: without special tokens, prompts apart from answers.

What a training record says and what an evaluation record says are read here alike, or they could not be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gristmill.filters.overlap import Texts
from gristmill.stages.text.instruct import parts_of

_SYSTEM, _END = "<|system|>", "<|end|>"


def texts_of(batch: pa.RecordBatch, samples: bool) -> Texts:
    """Of a batch with the columns of `stages.mix.tokenize.TextShard`. Excerpts of a sample are its prompt, and prompt
    with answers, both without the system message: the same question under another instruction is the same question."""
    if not samples:
        return Texts(batch["text"])
    rows = [
        _read(text, spans) for text, spans in zip(batch["text"].to_pylist(), batch["parts"].to_pylist(), strict=True)
    ]
    columns = [pa.array([row[number] for row in rows], pa.string()) for number in range(3)]
    return Texts(columns[0], tuple(columns[1:]))


def _read(text: str, spans: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """The whole of a sample, its prompt, and prompt and answers."""
    whole, prompt, exchange, in_system = [], [], [], False
    for part in parts_of(text, spans):
        if part.special:
            in_system = part.text == _SYSTEM or (in_system and part.text != _END)
            continue
        whole.append(part.text)
        if not in_system:
            exchange.append(part.text)
            if not part.loss_mask:
                prompt.append(part.text)
    return "\n".join(whole), "\n".join(prompt), "\n".join(exchange)
