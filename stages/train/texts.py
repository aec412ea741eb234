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
    """Of a batch with the columns of `stages.mix.tokenize.TextShard`. Of samples the prompt is all that the loss does
    not count, but for the system message: the same question under another instruction is the same question."""
    if not samples:
        return Texts(batch["text"])
    wholes, prompts = [], []
    for text, spans in zip(batch["text"].to_pylist(), batch["parts"].to_pylist(), strict=True):
        whole, prompt = _read(text, spans)
        wholes.append(whole)
        prompts.append(prompt)
    return Texts(pa.array(wholes, pa.string()), pa.array(prompts, pa.string()))


def _read(text: str, spans: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The whole of a sample, and its prompt."""
    whole, prompt, in_system = [], [], False
    for part in parts_of(text, spans):
        if part.special:
            in_system = part.text == _SYSTEM or (in_system and part.text != _END)
            continue
        whole.append(part.text)
        if not part.loss_mask and not in_system:
            prompt.append(part.text)
    return "\n".join(whole), "\n".join(prompt)
