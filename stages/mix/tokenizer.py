"""Tokenizer: a byte-level BPE trained on the texts of versions, by one Work.

Where the texts are more than `max_bytes`, training sees a part of them: of some shards, drawn by the seed, the records
whose key is below a cut. Of samples the special tokens are left out: a tokenizer has them anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, iter_batches, open_parquet, put_file, scratch
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.bpe import train_tokenizer
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.mix.fitting import mixed
from gristmill.stages.mix.tokenize import TextShard, draw_keys, text_shards
from gristmill.stages.text.instruct import parts_of


@dataclass(frozen=True)
class TrainingTexts:
    """Shards of versions, in their order."""

    shards: tuple[TextShard, ...]


@dataclass(frozen=True)
class TrainedFacts:
    """`vocab_size`: entries; `documents` and `bytes` (UTF-8) that it was trained on."""

    vocab_size: int
    documents: int
    bytes: int


@dataclass(frozen=True)
class TrainTokenizer(Stage[TrainingTexts]):
    """`vocab_size`: entries with the special tokens. `max_bytes`: of UTF-8 text to train on; all, if there is less."""

    name: ClassVar[str] = "train_tokenizer"
    VERSION: ClassVar[int] = 1

    vocab_size: int = 32_768
    max_bytes: int = 1 << 30
    min_frequency: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.vocab_size < 300:
            raise ValueError(f"vocab_size={self.vocab_size}: at least 300 (256 bytes and the special tokens)")
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes={self.max_bytes}: at least 1")
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency={self.min_frequency}: at least 1")

    def run(self, store: Store, work: Work[TrainingTexts]) -> Outcome:
        """Output `tokenizer`, a tokenizer.json; facts: TrainedFacts."""
        shards, cut = self._drawn(store, work.payload.shards)
        documents = size = 0

        def training_texts() -> Iterator[str]:
            nonlocal documents, size
            for texts in shards:
                for batch in iter_batches(store, texts.shard, texts.columns):
                    for text in _texts(batch.filter(pa.array(self._keys(batch) < cut)), texts.samples):
                        documents += 1
                        size += len(text.encode())
                        yield text

        data = train_tokenizer(training_texts(), self.vocab_size, min_frequency=self.min_frequency)
        vocab_size = Tokenizer.from_bytes(data).vocab_size
        with scratch() as folder:
            path = folder / "tokenizer.json"
            path.write_bytes(data)
            ref = put_file(store, "tokenizer", path, vocab_size)
        return Outcome(outputs=(ref,), facts=TrainedFacts(vocab_size, documents, size))

    def _keys(self, batch: pa.RecordBatch) -> np.ndarray:
        """Of each record a number in [0, 1) that its id and the seed decide."""
        return mixed(draw_keys(batch["id"].to_pylist()), self.seed) / 2.0**64

    def _drawn(self, store: Store, shards: Sequence[TextShard]) -> tuple[list[TextShard], float]:
        """Shards with about four times `max_bytes` of text, in their order, and the share of their records to take.

        Four times, so that records of many shards are mixed; not all of them, so that a training on a gigabyte of a
        large version does not read all of it.
        """
        refs = [texts.shard for texts in shards]
        order = sorted(refs, key=lambda ref: digest_of(b"train_tokenizer", str(self.seed), ref.sha256))
        drawn, have = set[str](), 0
        for ref in order:
            if have < 4 * self.max_bytes:
                drawn.add(ref.sha256)
                have += _text_bytes(store, ref)
        share = min(1.0, self.max_bytes / have) if have else 1.0
        return [texts for texts in shards if texts.shard.sha256 in drawn], share


def _text_bytes(store: Store, ref: ObjectRef) -> int:
    """Bytes of text in a shard, by the footer of the file: no page is read."""
    with open_parquet(store, ref) as file:
        at = file.schema_arrow.get_field_index("text")
        groups = range(file.num_row_groups)
        return sum(file.metadata.row_group(g).column(at).total_uncompressed_size for g in groups)


def _texts(batch: pa.RecordBatch, samples: bool) -> Iterator[str]:
    """What is trained on: texts of documents; of samples each part that is no special token."""
    texts = batch["text"].to_pylist()
    if not samples:
        yield from texts
        return
    for text, spans in zip(texts, batch["parts"].to_pylist(), strict=True):
        yield from (part.text for part in parts_of(text, spans) if not part.special)


def tokenizer_work(stage: TrainTokenizer, sources: Sequence[Manifest]) -> Work[TrainingTexts]:
    """The one Work of a training on these versions. Raises ValueError for one without texts."""
    shards = tuple(texts for source in sources for texts in text_shards(source))
    return Work(
        stage=stage,
        inputs=tuple(texts.shard.sha256 for texts in shards),
        payload=TrainingTexts(shards),
        received=Tally(),
        label=f"{stage.vocab_size:,} entries",
    )
