"""Evaluate: a model answers the questions of a piece, and each answer is judged. One Work a piece.

The model is loaded once a worker. Perplexity and choices are scored in passes, answers are written by the project's
engine, greedily unless the recipe says otherwise. Every record is kept with a row, or dropped with a reason: its prompt
does not fit, it has nothing to score, or not what was asked for.
Notable choice: not exact. Likelihoods have other last bits on another device, so the first receipt counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_object
from gristmill.model.evaluate.samples import Rules, answer_fault
from gristmill.model.evaluate.scores import ROWS
from gristmill.model.processing.chat.calls import Calls
from gristmill.model.processing.detokenize import decoder
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.work import Outcome, Resources, WarmStage, Work, stage_id
from gristmill.stages.evaluate.pieces import Piece, Question, questions, records_table, stretches_before
from gristmill.stages.models.model_versions import load_model

if TYPE_CHECKING:  # torch takes seconds to import, and who plans an evaluation needs none
    from gristmill.model.evaluate.likelihood import Scoring, Sizes
    from gristmill.model.generate.engine import Completion, Engine, Request
    from gristmill.model.phi4.multimodal import Multimodal

ROWS_KIND = "verdicts"
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


@dataclass(frozen=True)
class EvaluateFacts:
    """`device` that the model was on."""

    device: str


@dataclass(frozen=True)
class Evaluate(WarmStage[Piece, "Ready"]):
    """`model`: content digest of its version; `tokenizer`: sha256; `dtype`: of the weights, None: as stored.
    `window`: tokens of a piece in which perplexity is scored. `where` is no part of its identity."""

    name: ClassVar[str] = "evaluate"
    VERSION: ClassVar[int] = 1

    deterministic = False

    model: str
    tokenizer: str
    dtype: str | None = None
    rules: Rules = field(default_factory=Rules)
    generate: Generate = field(default_factory=Generate)
    window: int = 4096
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
        assert self.where is not None
        loaded = load_model(store, self.where.model, dtype=self.dtype, device=self.where.device)
        if loaded.manifest.digest != self.model:
            raise ValueError(f"{self.where.model} has digest {loaded.manifest.digest[:12]}, not {self.model[:12]}")
        tokenizer = Tokenizer.from_bytes(read_object(store, self.where.tokenizer))
        tokenizer.check_fits(loaded.model.config.text.vocab_size)
        return Ready(self, loaded.model, tokenizer)

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


class Unanswered(NamedTuple):
    """A record without a row, and why."""

    record: dict[str, Any]
    reason: str
    value: int | None = None


class Row(NamedTuple):
    """A record with its row of ROWS."""

    record: dict[str, Any]
    fields: dict[str, Any]


class Ready:
    """A loaded model that answers questions."""

    def __init__(self, stage: Evaluate, model: Multimodal, tokenizer: Tokenizer) -> None:
        self.stage, self.model, self.tokenizer = stage, model, tokenizer
        self._calls = Calls(tokenizer)

    @property
    def device(self) -> str:
        """What it runs on: "cpu", or the name of a GPU."""
        import torch

        device = self.model.language.norm.weight.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    @cached_property
    def engine(self) -> Engine:
        """Made when the first answer is to be written: its caches are large."""
        from gristmill.model.generate.engine import Engine, Options

        assert self.stage.where is not None
        options = Options(self.stage.where.max_num_seqs, self.stage.generate.context, block_size=PAGE)
        return Engine(self.model, options)

    @cached_property
    def sizes(self) -> Sizes:
        """Bytes of tokens."""
        from gristmill.model.evaluate.likelihood import Sizes

        return Sizes(self.tokenizer)

    def rows(self, store: Store, piece: Piece) -> Iterator[Row | Unanswered]:
        """What became of each record of a piece, in no order."""
        by_task: dict[str, list[Question]] = {}
        for question in questions(store, piece, self.tokenizer, self.stage.rules):
            if not isinstance(question, Question):
                yield Unanswered(*question)
                continue
            task = question.item.task
            by_task.setdefault(task if task in ("perplexity", "choice") else "written", []).append(question)
        yield from self._perplexity(by_task.get("perplexity", ()))
        yield from self._choices(by_task.get("choice", ()))
        yield from self._written(by_task.get("written", ()))

    def _perplexity(self, asked: Sequence[Question]) -> Iterator[Row | Unanswered]:
        """Nats of all tokens that count for the loss, each predicted from what stands before it in its piece."""
        from gristmill.model.evaluate.likelihood import Scoring, windows

        scorings: list[Scoring] = []
        owners: list[tuple[int, int, int]] = []  # question, first scored, end
        for number, question in enumerate(asked):
            for start, first, end in windows(len(question.tokens), self.stage.window):
                if question.scored[first:end].any():
                    scorings.append(Scoring(question.tokens[start:end], first - start))
                    owners.append((number, first, end))
        nats = [0.0] * len(asked)
        for (number, first, end), logprobs in zip(owners, self._scored(scorings), strict=True):
            nats[number] -= float(logprobs[asked[number].scored[first:end]].sum())
        for question, cost in zip(asked, nats, strict=True):
            targets = np.flatnonzero(question.scored[1:]) + 1  # before the first token stands nothing
            if not len(targets):
                yield Unanswered(question.record, "evaluate.empty")
                continue
            size = self.sizes.of([question.tokens[place] for place in targets])
            counts = {"nats": cost, "tokens": len(targets), "bytes": size}
            yield self._row(question, score=cost / len(targets), **counts)

    def _scored(self, scorings: Sequence[Scoring]) -> list[np.ndarray]:
        from gristmill.model.evaluate.likelihood import score

        assert self.stage.where is not None
        return [scored.logprobs for scored in score(self.model, scorings, pass_tokens=self.stage.where.pass_tokens)]

    def _choices(self, asked: Sequence[Question]) -> Iterator[Row | Unanswered]:
        """The most likely option, and the most likely by character: `acc` and `acc_norm` of lm-evaluation-harness."""
        from gristmill.model.evaluate.likelihood import Scoring

        fitting: list[Question] = []
        scorings: list[Scoring] = []
        for question in asked:
            ends = self.tokenizer.encode([[Segment(option)] for option in question.item.options])
            options = np.split(ends.ids, np.cumsum(ends.lengths)[:-1])
            longest = len(question.tokens) + max(map(len, options))
            if longest > self.stage.generate.context:
                yield Unanswered(question.record, "evaluate.too_long", longest)
                continue
            fitting.append(question)
            scorings += [Scoring((*question.tokens, *option.tolist()), len(question.tokens)) for option in options]
        logprobs = iter(self._scored(scorings))
        for question in fitting:
            item = question.item
            likelihoods = np.array([next(logprobs).sum() for _ in item.options])
            chosen = int(likelihoods.argmax())
            by_length = int((likelihoods / [len(option) for option in item.options]).argmax())
            right = chosen == item.right
            verdict = {"score": float(right), "reason": None if right else "other_option"}
            yield self._row(question, answer=item.options[chosen], score_norm=float(by_length == item.right), **verdict)

    def _written(self, asked: Sequence[Question]) -> Iterator[Row | Unanswered]:
        """Answers that the model writes."""
        from gristmill.model.generate.engine import Request
        from gristmill.model.generate.sampling import Sampling

        generate = self.stage.generate
        sampling = Sampling(max_tokens=generate.max_tokens, temperature=generate.temperature)
        requests: list[Request] = []
        owners: dict[str, Question] = {}
        for question in asked:
            needed = len(question.tokens) + generate.max_tokens
            if needed > generate.context:
                yield Unanswered(question.record, "evaluate.too_long", needed)
                continue
            key = f"{generate.seed}/{question.record['input']}/{question.record['ordinal']}"
            owners[key] = question
            requests.append(Request(key, question.tokens, sampling))
        for completion in self.engine.run(requests):
            yield self._judged(owners[completion.request.key], completion)

    def _judged(self, question: Question, completion: Completion) -> Row:
        ends = self.model.config.text.eos_token_id
        answer = completion.text(decoder(self.tokenizer), ends)
        tokens = completion.tokens[:-1] if completion.tokens[-1] in ends else completion.tokens
        split = self._calls.split(tokens)
        item, rules = question.item, self.stage.rules
        fault = answer_fault(item, answer, None if split is None else split[1], rules)
        return self._row(
            question,
            answer=answer,
            score=float(fault is None),
            reason=fault,
            harmful=item.harmful,
            refused=rules.judge.refuses(answer),
            cut=completion.finish_reason == "length",
        )

    def _row(self, question: Question, **fields: Any) -> Row:
        item, record = question.item, question.record
        about = {
            "id": record["id"],
            "input": record["input"],
            "ordinal": record["ordinal"],
            "source": question.source,
            "task": item.task,
            "prompt": hashlib.sha256(np.array(question.tokens, np.int32).tobytes()).hexdigest()[:32],
            "question": item.question or None,
            "expected": item.expected or None,
        }
        return Row(record, about | fields)
