"""The texts of a version's records as people would read them: without special tokens, prompts apart from answers.

What a training record says and what an evaluation record says are read here alike, or they could not be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.overlap import Texts
from gristmill.filters.text.docs import Docs
from gristmill.model.processing.segments import Segment
from gristmill.stages.text.instruct import parts_of

_SYSTEM, _END = "<|system|>", "<|end|>"


class Samples(Docs):
    """Samples as documents: their texts without special tokens, of which prompts are compared by themselves too."""

    columns: ClassVar[tuple[str, ...]] = ("text", "parts")

    def __init__(self, texts: Texts, sizes: pa.Array) -> None:
        super().__init__(texts.wholes)
        self._excerpts, self._sizes = texts.excerpts, sizes

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """Those of a table with `columns`."""
        return cls(texts_of(rows, samples=True), pc.binary_length(rows["text"]))

    @classmethod
    def empty(cls) -> Self:
        """A batch of no samples."""
        texts = pa.array([], pa.string())
        return cls(Texts(texts, (texts, texts)), pa.array([], pa.int32()))

    @property
    def excerpts(self) -> tuple[pa.StringArray, ...]:
        """The prompt of each, and prompt with answers."""
        return self._excerpts

    @property
    def sizes(self) -> pa.Array:
        """Bytes of each sample as it is stored, UTF-8."""
        return self._sizes


def texts_of(batch: pa.RecordBatch, samples: bool) -> Texts:
    """Of a batch with the columns of `stages.mix.tokenize.TextShard`. Excerpts of a sample are its prompt, and prompt
    with answers, both without the system message: the same question under another instruction is the same question.
    Those of a pair are its prompt, and that with either answer."""
    if not samples:
        return Texts(batch["text"])
    rows = [
        parts_of(text, spans) for text, spans in zip(batch["text"].to_pylist(), batch["parts"].to_pylist(), strict=True)
    ]
    if "rejected_at" in batch.schema.names:
        read = [_read_pair(parts, at) for parts, at in zip(rows, batch["rejected_at"].to_pylist(), strict=True)]
        return _columns(read, 4)
    return _columns([_read(parts) for parts in rows], 3)


def _columns(rows: Sequence[Sequence[str]], count: int) -> Texts:
    whole, *excerpts = (pa.array([row[number] for row in rows], pa.string()) for number in range(count))
    return Texts(whole, tuple(excerpts))


def _read_pair(parts: Sequence[Segment], rejected_at: int) -> tuple[str, str, str, str]:
    """The whole of a pair, its prompt, and the prompt with either answer."""
    count, at = 0, 0
    while at < rejected_at:
        at += len(parts[count].text)
        count += 1
    chosen, rejected = _read(parts[:count]), _read(parts[count:])
    return f"{chosen[0]}\n{rejected[0]}", chosen[1], chosen[2], rejected[2]


def _read(parts: Sequence[Segment]) -> tuple[str, str, str]:
    """The whole of a sample, its prompt, and prompt and answers."""
    whole, prompt, exchange, in_system = [], [], [], False
    for part in parts:
        if part.special:
            in_system = part.text == _SYSTEM or (in_system and part.text != _END)
            continue
        whole.append(part.text)
        if not in_system:
            exchange.append(part.text)
            if not part.loss_mask:
                prompt.append(part.text)
    return "\n".join(whole), "\n".join(prompt), "\n".join(exchange)
