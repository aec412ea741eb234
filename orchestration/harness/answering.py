"""What EleutherAI's lm-evaluation-harness asks of a model: tokens, log-probabilities, answers.

How tasks are put and scored is the harness's own (`lm`): where a context ends, how long texts are cut.
Notable choice: the harness passes chats as texts, in which special tokens have to be told from words that spell them.
They stand between two noncharacters of Unicode, which are taken out of every text.
Source: lm-evaluation-harness 0.4, `lm_eval.api.model` and `lm_eval.models.huggingface` as the model to be equal to.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.model.evaluate.likelihood import Scoring, score
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.processing.chat.served import read_history
from gristmill.model.processing.chat.template import answered, render
from gristmill.model.processing.detokenize import decoder
from gristmill.model.processing.segments import END_OF_TEXT, Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.stages.evaluate.settings import PAGE

_BEGIN, _END = "\ufdd0", "\ufdd1"
_SPECIAL = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}")
_MARKS = re.compile(f"[{_BEGIN}{_END}]")
_KNOWN = ("until", "max_gen_toks", "do_sample", "temperature", "top_p")


class Answering:
    """A model with its tokenizer, as the harness asks it. `max_length`: tokens of context and answer, whole pages."""

    def __init__(self, model: Multimodal, tokenizer: Tokenizer, max_length: int, max_num_seqs: int = 16) -> None:
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        self._options = Options(max_num_seqs, max_length, block_size=PAGE)
        self._engine: Engine | None = None

    def encode(self, text: str) -> list[int]:
        """Tokens of a text as `template` writes it, or of any other."""
        segments = [
            Segment(part, special=bool(n % 2)) if n % 2 else Segment(_MARKS.sub("", part))
            for n, part in enumerate(_SPECIAL.split(text))
        ]
        ids: list[int] = self.tokenizer.encode([[segment for segment in segments if segment.text]]).ids.tolist()
        return ids

    def template(self, history: Sequence[Mapping[str, Any]], goes_on: bool) -> str:
        """A chat as a text. `goes_on`: its last message is one of the assistant that is not at its end."""
        conversation = read_history([{**turn, "content": _MARKS.sub("", turn["content"])} for turn in history], ())
        # Of a whole conversation the end of the last turn and of the text are left out.
        segments = render(conversation)[:-2] if goes_on else answered(conversation)
        return "".join(f"{_BEGIN}{part.text}{_END}" if part.special else part.text for part in segments)

    def loglikelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Of each (context, continuation) in tokens the continuation's log-probability, and whether the model would
        have written just this. A context that is too long loses its beginning. Raises ValueError for a continuation
        that is empty, or leaves no room for a token before it."""
        scorings = []
        for context, continuation in pairs:
            if not 0 < len(continuation) < self.max_length or not context:
                raise ValueError(
                    f"a continuation of {len(continuation)} tokens after {len(context)}: allowed are 1 to"
                    f" {self.max_length - 1} tokens after 1 or more"
                )
            tokens = [*context, *continuation][-self.max_length :]
            scorings.append(Scoring(tokens, len(tokens) - len(continuation)))
        return [(float(scored.logprobs.sum()), bool(scored.greedy.all())) for scored in score(self.model, scorings)]

    def answers(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """What the model writes after each context, up to a stop text. A context that is too long loses its beginning.

        Raises ValueError for a setting that is not known: it would change the answer.
        """
        requests, seen = [], Counter[str]()
        for context, settings in asked:
            if unknown := sorted(settings.keys() - set(_KNOWN)):
                raise ValueError(f"{unknown[0]}={settings[unknown[0]]!r}: known are {', '.join(_KNOWN)}")
            sampling = Sampling(
                max_tokens=settings["max_gen_toks"],
                temperature=settings.get("temperature", 0.0) if settings.get("do_sample") else 0.0,
                top_p=settings.get("top_p", 1.0),
                stop=tuple(filter(None, settings.get("until") or ())),
            )
            room = self.max_length - settings["max_gen_toks"]
            if room < 1:
                raise ValueError(f"max_gen_toks={settings['max_gen_toks']}: the model's length is {self.max_length}")
            # By what is asked, and how often it was: so an answer that is drawn does not hang on the others.
            digest = hashlib.sha256(context.encode()).hexdigest()
            tokens = self.encode(context) or [self.tokenizer.special(END_OF_TEXT)]
            requests.append(Request(f"{digest}/{seen[digest]}", tuple(tokens[-room:]), sampling))
            seen[digest] += 1
        if self._engine is None:
            self._engine = Engine(self.model, self._options, decoder(self.tokenizer))
        texts = {done.request.key: done.text(self._text, self._ends) for done in self._engine.run(requests)}
        return [texts[request.key] for request in requests]

    @property
    def _ends(self) -> tuple[int, ...]:
        return tuple(self.model.config.text.eos_token_id)

    def _text(self, tokens: Sequence[int]) -> str:
        """Without special tokens, as the harness has it of other models."""
        words = (token for token in tokens if self.tokenizer.has(token) and not self.tokenizer.is_special(token))
        return self.tokenizer.decode(words)
