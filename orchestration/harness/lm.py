"""The class that lm-evaluation-harness asks for; it wants the extra `lm-eval`. `lake.lake_lm` makes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from gristmill.model.processing.segments import END_OF_TEXT
from gristmill.orchestration.harness.answering import Answering


class LakeLM(TemplateLM):
    """`name` of the model, by which the harness keeps its caches apart; `max_gen_toks` where a task does not say."""

    def __init__(self, answering: Answering, name: str, max_gen_toks: int) -> None:
        super().__init__()
        self.answering, self.name, self.max_gen_toks = answering, name, max_gen_toks

    @property
    def eot_token_id(self) -> int:
        """What stands before a text without a context."""
        return self.answering.tokenizer.special(END_OF_TEXT)

    @property
    def max_length(self) -> int:
        """Tokens of context and answer."""
        return self.answering.max_length

    @property
    def tokenizer_name(self) -> str:
        """The name."""
        return self.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokens; nothing is put before or behind them."""
        return self.answering.encode(string)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """What its template is called: it is code, and no text."""
        return "Phi-4-mini"

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as the harness passes it on."""
        return self.answering.template(chat_history, goes_on=not add_generation_prompt)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of each text, its first token after <|endoftext|>, long ones in windows as the harness cuts them."""
        totals = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.eot_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            totals.append(sum(logprob for logprob, _ in self.answering.loglikelihoods(pairs)))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What is written after each context."""
        return self.answering.answers(
            [
                (context, normalize_gen_kwargs(dict(given), self.max_gen_toks))
                for context, given in (r.args for r in requests)
            ]
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        return self.answering.loglikelihoods([(context, continuation) for _, context, continuation in requests])
