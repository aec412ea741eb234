"""The probe: what a server does with parameters that it may ignore, asked before a run relies on them.

A server that ignores `temperature` answers 200 with the same text every time, and a run of a million samples would be
one sample a problem. So each promise is tried: several answers by `n`, answers that differ, the same answer by the same
seed, a refusal of what does not fit, tokens counted. Each finding says what follows from it: nothing, another way to
ask, or that this server is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gristmill.stages.generate.engines.endpoint import Away, BadEndpoint, OpenAIEngine
from gristmill.stages.generate.engines.protocol import Ask
from gristmill.stages.generate.engines.replies import Failed, Reply

Check = Literal["answers", "distinct", "n", "seed", "overlong", "usage"]
_QUESTION = "Think of a number between 1 and 1000, and write a sentence about it."
_SEEDS = 4
_PROBE_TOKENS = 48
"""Of an answer to a probe: enough that two draws of it differ."""


@dataclass(frozen=True)
class Finding:
    """Whether a promise is kept, and what follows."""

    check: Check
    kept: bool
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.what}"


def probe(engine: OpenAIEngine, context: int) -> tuple[Finding, ...]:
    """Asks a server some ten times, and sets how the engine asks from now on. `context`: tokens that it shall take.

    Raises BadEndpoint for one that cannot be used, which says why; Away for one that may answer at another time.
    """
    ask = Ask("probe", (0,), _QUESTION)
    seeds = [engine.draws.number("probe", sample) for sample in range(_SEEDS)]
    tokens = min(_PROBE_TOKENS, engine.draws.max_tokens)
    drawn = [_asked(engine, engine.body(ask, max_tokens=tokens, seed=seed)) for seed in seeds]
    findings = [
        Finding("answers", True, "it answers"),
        _distinct(engine, drawn),
        _n(engine, ask, tokens),
        _seed(drawn[0], _asked(engine, engine.body(ask, max_tokens=tokens, seed=seeds[0]))),
        _overlong(engine, context),
        _usage(engine, drawn),
    ]
    return tuple(findings)


def check_answers(engine: OpenAIEngine) -> None:
    """Asks one simple question. Raises as `probe`."""
    _asked(engine, engine.body(Ask("probe", (0,), _QUESTION), max_tokens=1))


def _asked(engine: OpenAIEngine, body: dict[str, object]) -> Reply:
    try:
        return engine.ask(body)
    except Failed as failed:
        kind = Away if failed.again else BadEndpoint
        raise kind(f"the server does not answer a simple question: {failed}") from None


def _distinct(engine: OpenAIEngine, drawn: list[Reply]) -> Finding:
    texts = {reply.choices[0].text for reply in drawn if reply.choices}
    if len(texts) < 2:
        raise BadEndpoint(
            f"the server draws the same text with {_SEEDS} seeds at temperature {engine.draws.temperature:g}: all"
            " samples of a problem would be copies. Is it a server that ignores temperature? Use another"
        )
    return Finding("distinct", True, f"{len(texts)} texts of {len(drawn)} seeds")


def _n(engine: OpenAIEngine, ask: Ask, tokens: int) -> Finding:
    try:
        reply = engine.ask(engine.body(ask, n=3, max_tokens=tokens))
        kept = len(reply.choices) == 3 and len({choice.text for choice in reply.choices}) > 1
        what = f"{len(reply.choices)} answers to n=3"
    except Failed as failed:
        kept, what = False, f"n=3 is answered by {failed.failure}"
    engine.use_n = engine.endpoint.share_prompts and kept
    if engine.endpoint.share_prompts and not kept:
        what += ", so that each sample is a request by itself"
    return Finding("n", kept, what)


def _seed(before: Reply, again: Reply) -> Finding:
    kept = [choice.text for choice in before.choices] == [choice.text for choice in again.choices]
    return Finding(
        "seed", kept, "draws again what it drew" if kept else "another text by the same seed: what is lost is lost"
    )


def _overlong(engine: OpenAIEngine, context: int) -> Finding:
    """A prompt of more words than the context has tokens: a server that answers cut it, and none would know."""
    body = engine.body(Ask("probe", (0,), "mill " * (context + 1)), max_tokens=1)
    try:
        engine.ask(body)
    except Failed as failed:
        if failed.failure in ("too_long", "refused"):
            return Finding("overlong", True, "refused")
        raise BadEndpoint(f"the server met a prompt of {context + 1:,} words with {failed}") from None
    # A token has a byte at least, so a prompt of so many bytes fits whatever the tokenizer.
    engine.longest_prompt = max(0, context - engine.draws.max_tokens)
    return Finding(
        "overlong",
        False,
        f"cut without a word, so that prompts of more than {engine.longest_prompt:,} bytes are not asked",
    )


def _usage(engine: OpenAIEngine, drawn: list[Reply]) -> Finding:
    if all(reply.tokens and reply.prompt_tokens for reply in drawn):
        return Finding("usage", True, "tokens are counted")
    if engine.endpoint.prompt_price is not None or engine.endpoint.answer_price is not None:
        raise BadEndpoint(
            "the server counts no tokens, so that what the run costs would not be known. Take out prompt_price and"
            " answer_price to run without"
        )
    return Finding("usage", False, "tokens are not counted, and stand in no ledger")
