"""A language model as the judge of chains: the judge of `synth.verify`, asked through an engine of this package.

The model may be the one that drew the samples or another, of the lake or on a server of its own. It is asked with one
prompt a chain and nearly greedily, as many side by side as the engine takes. What an engine could not give leaves the
chain undecided, by the engine's own word for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gristmill.lake.store.base import Store
from gristmill.stages.generate.draw import EngineSpec, Hosts, compact_engine
from gristmill.stages.generate.endpoint import OpenAIEngine
from gristmill.stages.generate.probe import check_answers
from gristmill.stages.generate.protocol import Ask, Draws, Engine
from gristmill.synth.verify.judge import EngineFailed, Judge


@dataclass(frozen=True)
class JudgeSpec(EngineSpec):
    """Who judges, as `EngineSpec`. `max_tokens` of a reply, which has to end in its ruling; `temperature` of it."""

    max_tokens: int = 1024
    temperature: float = 0.1

    @property
    def draws(self) -> Draws:
        """How a reply is drawn."""
        return Draws(self.max_tokens, self.temperature)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws.max_tokens >= self.context:
            raise ValueError(
                f"max_tokens={self.max_tokens}: less than context={self.context}, which holds the prompt too"
            )


def judge_engine(store: Store, spec: JudgeSpec, hosts: Hosts) -> Engine:
    """The engine of a judge. Raises as `compact_engine`, and as `probe` for a server that does not answer; one that
    draws copies is welcome here."""
    if spec.kind == "openai":
        engine = OpenAIEngine(hosts.endpoint, spec.model, spec.draws)
        try:
            check_answers(engine)
        except BaseException:
            engine.close()
            raise
        return engine
    return compact_engine(store, spec, spec.draws, hosts)


def side_by_side(spec: JudgeSpec, hosts: Hosts) -> int:
    """How many chains are judged at a time."""
    return hosts.endpoint.in_flight if spec.kind == "openai" else hosts.max_num_seqs


def model_judge(spec: JudgeSpec, engine: Engine | None) -> Judge:
    """The judge. Without an engine it has a name alone, and nothing can be asked of it."""

    def ask(prompt: str) -> str:
        assert engine is not None
        name = hashlib.sha256(prompt.encode()).hexdigest()  # the same prompt is answered by the same draw
        (reply,) = engine.generate([Ask(name, (0,), prompt)])
        if reply.text is None:
            raise EngineFailed(f"{reply.failure}: {reply.detail}")
        return reply.text

    return Judge(ask, spec.model)
