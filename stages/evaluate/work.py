"""Evaluate: a model answers the questions of a piece, and each answer is judged. One Work a piece.

The model is loaded once a worker. Perplexity and choices are scored in passes, answers are written by the project's
engine, greedily unless the recipe says otherwise. Every record is kept with a row, or dropped with a reason: its prompt
does not fit, it has nothing to score, or not what was asked for.
Notable choice: not exact. Likelihoods have other last bits on another device, so the first receipt counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_object
from gristmill.model.evaluate.samples import Rules
from gristmill.model.evaluate.scores import ROWS
from gristmill.model.processing.image_file import MOST_PIXELS
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.placeholders import LogMel
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.work import Outcome, Resources, WarmStage, Work, stage_id
from gristmill.stages.evaluate.pieces import Piece, records_table, stretches_before
from gristmill.stages.evaluate.ready import Ready, Unanswered
from gristmill.stages.evaluate.settings import Generate, Where
from gristmill.stages.models.model_versions import load_model

ROWS_KIND = "verdicts"
"""The kind of the objects with the rows of a piece."""


@dataclass(frozen=True)
class EvaluateFacts:
    """`device` that the model was on."""

    device: str


@dataclass(frozen=True)
class Evaluate(WarmStage[Piece, Ready]):
    """`model`: content digest of its version; `tokenizer`: sha256; `dtype`: of the weights, None: as stored.
    `window`: tokens of a piece in which perplexity is scored; `max_crops`: of an image of a sample, `max_seconds` of a
    clip. `where` is no part of its identity."""

    name: ClassVar[str] = "evaluate"
    VERSION: ClassVar[int] = 3  # rows have more columns

    deterministic = False

    model: str
    tokenizer: str
    dtype: str | None = None
    rules: Rules = field(default_factory=Rules)
    generate: Generate = field(default_factory=Generate)
    window: int = 4096
    max_crops: int = 36
    max_seconds: float = LogMel.max_seconds
    where: Where | None = None

    @property
    def resources(self) -> Resources:
        """Of `where`."""
        return Resources() if self.where is None else Resources(self.where.cpus, self.where.gpus)

    def identity(self) -> tuple[StageId, ...]:
        """Without `where`."""
        return (stage_id(replace(self, where=None)),)

    def setup(self, store: Store) -> Ready:
        """Loads the model. Raises as `load_model`; ValueError for another model than was asked for."""
        from gristmill.model.windows.prompts import Prompts, cut_of, log_mel_of

        assert self.where is not None
        loaded = load_model(store, self.where.model, dtype=self.dtype, device=self.where.device)
        if loaded.manifest.digest != self.model:
            raise ValueError(f"{self.where.model} has digest {loaded.manifest.digest[:12]}, not {self.model[:12]}")
        tokenizer = Tokenizer.from_bytes(read_object(store, self.where.tokenizer))
        tokenizer.check_fits(loaded.model.config.text.vocab_size)
        config = loaded.model.config
        # Without these tokens it is asked in words; that there are media beside them was refused at lookup.
        sees = config.vision is not None and tokenizer.is_special(config.vision.image_token_id)
        hears = config.audio is not None and tokenizer.is_special(config.audio.audio_token_id)
        cut = cut_of(config, tokenizer, self.max_crops) if sees else None
        log_mel = log_mel_of(config, tokenizer, LogMel(max_seconds=self.max_seconds)) if hears else None
        prompts = Prompts(tokenizer, cut, MOST_PIXELS, log_mel)
        return Ready(loaded.model, prompts, self.rules, self.generate, self.window, self.where)

    def run_warm(self, store: Store, work: Work[Piece], warm: Ready) -> Outcome:
        """Outputs `verdicts` (ROWS) and fates; facts: EvaluateFacts. Raises MissingToken, DamagedObject."""
        piece, fates = work.payload, Fates()
        rows = []
        for row in warm.rows(store, piece):
            if isinstance(row, Unanswered):
                fates.add(row.record, "dropped", row.reason, row.value)
            else:
                rows.append(row)
        table = pa.Table.from_pylist([row.fields for row in rows], schema=ROWS).sort_by("ordinal")
        fates.add_kept(records_table([row.record for row in rows]), self.name)
        written, counts = fates.write(store)
        received = None
        if piece.members is not None:
            before, count = stretches_before(store, piece)
            received = Tally.of_records([piece.shard.sha256] * count, range(before, before + count))
        return Outcome(
            outputs=(put_table(store, ROWS_KIND, table), written),
            kept=counts.kept,
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=EvaluateFacts(warm.device),
            received=received,
        )


def evaluate_works(stage: Evaluate, pieces: Iterable[Piece]) -> Iterator[Work[Piece]]:
    """One Work a piece."""
    for piece in pieces:
        label = f"{piece.source} {piece.shard.sha256[:12]} {piece.first} to {piece.end}"
        yield Work(stage, piece.inputs, piece, received=piece.received, label=label)
