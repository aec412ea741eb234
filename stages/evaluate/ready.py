"""A loaded model that answers the questions of a piece: scored in passes, or written by the engine; and judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gristmill.lake.store.base import Store
from gristmill.model.evaluate.samples import QUOTING, Rules, verdict_of
from gristmill.model.processing.chat.calls import Calls
from gristmill.model.processing.detokenize import decoder
from gristmill.model.processing.segments import Segment
from gristmill.stages.evaluate.pieces import Piece, Question, questions
from gristmill.stages.evaluate.settings import PAGE, Generate, Where

if TYPE_CHECKING:  # torch takes seconds to import, and who plans an evaluation needs none
    from gristmill.model.evaluate.likelihood import Scoring, Sizes
    from gristmill.model.generate.engine import Completion, Engine
    from gristmill.model.phi4.multimodal import Multimodal
    from gristmill.model.windows.prompts import Prompts


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
    """A loaded model that answers questions by `rules`. `window`: tokens in which perplexity sees a text; `prompts`:
    how it is shown images."""

    def __init__(
        self, model: Multimodal, prompts: Prompts, rules: Rules, generate: Generate, window: int, where: Where
    ) -> None:
        self.model, self.prompts, self.tokenizer = model, prompts, prompts.tokenizer
        self.rules, self.generate, self.window, self.where = rules, generate, window, where
        self._calls = Calls(self.tokenizer)

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

        options = Options(self.where.max_num_seqs, self.generate.context, block_size=PAGE)
        return Engine(self.model, options)

    @cached_property
    def sizes(self) -> Sizes:
        """Bytes of tokens."""
        from gristmill.model.evaluate.likelihood import Sizes

        return Sizes(self.tokenizer)

    def rows(self, store: Store, piece: Piece) -> Iterator[Row | Unanswered]:
        """What became of each record of a piece, in no order."""
        by_task: dict[str, list[Question]] = {}
        scored = {"perplexity": self._perplexity, "choice": self._choices}
        seen: dict[str, list[Question]] = {task: [] for task in scored}
        for question in questions(store, piece, self.prompts, self.rules):
            if not isinstance(question, Question):
                yield Unanswered(*question)
                continue
            task = question.item.task
            if task in scored and question.media is not None:
                # The tiles of a piece are too much to hold: they go through the model as they come.
                seen[task].append(question)
                if sum(map(_scored_tokens, seen[task])) >= self.where.pass_tokens:
                    yield from scored[task](seen[task])
                    seen[task] = []
                continue
            by_task.setdefault(task if task in scored else "written", []).append(question)
        for name, score in scored.items():
            yield from score(seen[name])
            yield from score(by_task.get(name, ()))
        yield from self._written(by_task.get("written", ()))

    def _perplexity(self, asked: Sequence[Question]) -> Iterator[Row | Unanswered]:
        """Nats of all tokens that count for the loss, each predicted from what stands before it in its piece. What has
        images is seen whole, or not asked."""
        from gristmill.model.evaluate.likelihood import Scoring, windows

        scorings: list[Scoring] = []
        owners: list[tuple[int, int, int]] = []  # question, first scored, end
        long = [question for question in asked if question.media and len(question.tokens) > self.window]
        yield from (Unanswered(question.record, "evaluate.too_long", len(question.tokens)) for question in long)
        asked = [question for question in asked if question not in long] if long else asked
        for number, question in enumerate(asked):
            media = question.media and question.media()
            for start, first, end in windows(len(question.tokens), self.window):
                if question.scored[first:end].any():
                    scorings.append(Scoring(question.tokens[start:end], first - start, media))
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

        return [scored.logprobs for scored in score(self.model, scorings, pass_tokens=self.where.pass_tokens)]

    def _choices(self, asked: Sequence[Question]) -> Iterator[Row | Unanswered]:
        """The most likely option, and the most likely by character: `acc` and `acc_norm` of lm-evaluation-harness."""
        from gristmill.model.evaluate.likelihood import Scoring

        fitting: list[Question] = []
        scorings: list[Scoring] = []
        for question in asked:
            ends = self.tokenizer.encode([[Segment(option)] for option in question.item.options])
            options = np.split(ends.ids, np.cumsum(ends.lengths)[:-1])
            longest = len(question.tokens) + max(map(len, options))
            if longest > self.generate.context:
                yield Unanswered(question.record, "evaluate.too_long", longest)
                continue
            fitting.append(question)
            start, media = len(question.tokens), question.media and question.media()
            scorings += [Scoring((*question.tokens, *option.tolist()), start, media) for option in options]
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

        generate = self.generate
        sampling = Sampling(max_tokens=generate.max_tokens, temperature=generate.temperature)
        owners: dict[str, Question] = {}
        for question in asked:
            needed = len(question.tokens) + generate.max_tokens
            if needed > generate.context:
                yield Unanswered(question.record, "evaluate.too_long", needed)
                continue
            owners[f"{generate.seed}/{question.record['input']}/{question.record['ordinal']}"] = question
        # One by one, as the engine asks for them: what a question shows is made when its turn comes.
        requests = (
            Request(key, question.tokens, sampling, media=question.media and question.media())
            for key, question in owners.items()
        )
        for completion in self.engine.run(requests):
            yield self._judged(owners[completion.request.key], completion)

    def _judged(self, question: Question, completion: Completion) -> Row:
        ends = self.model.config.text.eos_token_id
        answer = completion.text(decoder(self.tokenizer), ends)
        tokens = completion.tokens[:-1] if completion.tokens[-1] in ends else completion.tokens
        split = self._calls.split(tokens)
        item, rules = question.item, self.rules
        verdict = verdict_of(item, answer, None if split is None else split[1], rules)
        if item.task not in QUOTING:
            verdict |= {"harmful": item.harmful, "refused": rules.judge.refuses(answer)}
        return self._row(
            question,
            **verdict,
            answer=answer,
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
            "language": item.language,
            "kind": question.kind,
        }
        return Row(record, about | fields)


def _scored_tokens(question: Question) -> int:
    """About: a prompt goes through the model once for each option."""
    return len(question.tokens) * max(1, len(question.item.options))
