"""Generate: samples of the problems of a chunk, one wave of them, by an engine that pieces of work share.

Which samples are drawn is a function of the problems and of the verdicts so far (`synth.sampling`): a wave is ordinary
work with a receipt, and a kill costs nothing that was sealed. What an engine could not give stands in the table with
its failure. Not exact: bits of other devices and servers differ, so the first receipt counts; on one kind of device the
engine `compact` draws the same samples again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.query.query import resolve_usable
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_object
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.text import Tokenizer
from gristmill.stages.core.work import Hosting, Outcome, Resources, WarmStage, Work, stage_id
from gristmill.stages.generate.engines.batch import BatchEngine
from gristmill.stages.generate.engines.compact import CompactEngine
from gristmill.stages.generate.engines.endpoint import Away, BadEndpoint, Endpoint, OpenAIEngine
from gristmill.stages.generate.engines.probe import Finding, probe
from gristmill.stages.generate.engines.protocol import Ask, Draws, Engine, Generation, Load
from gristmill.stages.generate.engines.vllm import Hosted, VllmEngine
from gristmill.stages.generate.engines.vllm_server import BadServer, Vllm
from gristmill.stages.generate.problems import PROBLEM, problem_of, prompt_of
from gristmill.stages.generate.tables import (
    GENERATED,
    GENERATED_SCHEMA,
    ORDER,
    Posing,
    Turn,
    by_problem,
    judged_rows,
    may_be_decided,
    without_agreement,
)
from gristmill.stages.models.model_versions import load_model, tokenizer_shard
from gristmill.synth.sampling import Stop, Waves, next_samples

EngineKind = Literal["compact", "openai", "vllm"]
PAGE = 128
"""Tokens of a page of the engine's cache."""
_SAMPLES_A_WORK = 4
"""Samples that a piece of work has under way at least, on average over its waves; the last ones are of few problems."""
_LEAST_WORKS = 8


@dataclass(frozen=True)
class EngineSpec:
    """Who draws. `compact`, `vllm`: `model` is an exact version of the lake, with `tokenizer`, one of a tokenizer,
    where it brings none; `dtype` of its weights, None: as stored. `openai`: `model` is what a server calls it
    (`run.hosts.endpoint` says where). `context`: tokens of prompt and answer together."""

    kind: EngineKind = "compact"
    model: str = ""
    tokenizer: str = ""
    dtype: str | None = None
    context: int = 4096

    def __post_init__(self) -> None:
        if self.kind not in get_args(EngineKind):
            raise ValueError(f"kind={self.kind!r}: one of {', '.join(get_args(EngineKind))}")
        if self.context < 1 or (self.kind == "compact" and self.context % PAGE):
            raise ValueError(f"context={self.context}: whole pages of {PAGE} tokens")


@dataclass(frozen=True)
class Prompt:
    """How a problem is posed: `template` with `{question}` in it, and `{tests}` if a program is to see its tests, after
    `system` if there is one."""

    template: str = "{question}"
    system: str | None = None

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise ValueError(f"template={self.template!r}: it says nowhere {{question}}")


@dataclass(frozen=True)
class Hosts:
    """Where engines run, which decides no sample. `engines` at most, each with `cpus` and `gpus`, on `device`;
    `works`: pieces of work that share one; None: as many as keep it full, though late waves are small. `max_num_seqs`:
    samples that it draws side by side. `endpoint`: the server of the engine `openai`, and how that of `vllm` is asked;
    `vllm`: how it is started."""

    device: str = "cpu"
    cpus: float = 1
    gpus: float = 0
    engines: int = 1
    works: int | None = None
    max_num_seqs: int = 32
    endpoint: Endpoint = field(default_factory=Endpoint)
    vllm: Vllm = field(default_factory=Vllm)

    def sharing(self, kind: EngineKind) -> int:
        """Pieces of work that share an engine of this kind."""
        if self.works is not None:
            return self.works
        return max(_LEAST_WORKS, self.side_by_side(kind) // _SAMPLES_A_WORK)

    def side_by_side(self, kind: EngineKind) -> int:
        """Samples that an engine of this kind has under way at a time."""
        return self.max_num_seqs if kind == "compact" else self.endpoint.in_flight


@dataclass(frozen=True)
class GenerateInput:
    """The problems of chunk number `chunk`, and which of their samples."""

    chunk: int
    posing: Posing
    turn: Turn


@dataclass(frozen=True)
class GenerateFacts:
    """`samples` that were asked for, of which `failed`; `tokens` of the answers, `prompt_tokens` before them, as far as
    the engine tells, in `requests`. `findings`: what the probe of a server found. `load`: of the engine, since a piece
    of work last told it."""

    engine: str
    samples: int
    failed: int
    tokens: int
    prompt_tokens: int
    requests: int
    findings: tuple[Finding, ...] = ()
    load: Load = Load()


@dataclass(frozen=True)
class Generate(WarmStage[GenerateInput, "Drawing"]):
    """Outputs `generated`. `voters`: samples that vote on the answer of their problem, all in its first wave; 0: none
    do. `hosts` is no part of its identity."""

    name: ClassVar[str] = "generate"
    VERSION: ClassVar[int] = 2

    deterministic = False

    engine: EngineSpec = field(default_factory=EngineSpec)
    draws: Draws = field(default_factory=Draws)
    prompt: Prompt = field(default_factory=Prompt)
    waves: Waves = field(default_factory=Waves)
    stop: Stop = field(default_factory=Stop)
    voters: int = 0
    hosts: Hosts | None = None

    @property
    def resources(self) -> Resources:
        """Of `hosts`."""
        return Resources() if self.hosts is None else Resources(self.hosts.cpus, self.hosts.gpus)

    @property
    def hosting(self) -> Hosting:
        """Of `hosts`."""
        return Hosting() if self.hosts is None else Hosting(self.hosts.sharing(self.engine.kind), self.hosts.engines)

    def identity(self) -> tuple[StageId, ...]:
        """Without `hosts`."""
        return (stage_id(replace(self, hosts=None)),)

    def setup(self, store: Store) -> Drawing:
        """The engine. Raises as `load_model`; BadEndpoint for a server that the probe refuses; BadServer for vLLM that
        does not start, or that the probe refuses."""
        assert self.hosts is not None
        if self.engine.kind == "openai" and self.hosts.endpoint.batch_folder:
            return Drawing(BatchEngine(self.hosts.endpoint, self.engine.model, self.draws))
        if self.engine.kind == "openai":
            client = OpenAIEngine(self.hosts.endpoint, self.engine.model, self.draws)
            try:
                return Drawing(client, probe(client, self.engine.context))
            except BaseException:
                client.close()
                raise
        if self.engine.kind == "vllm":
            hosted = vllm_engine(store, self.engine, self.draws, self.hosts)
            try:
                return Drawing(hosted, probe(hosted.client, self.engine.context))
            except BaseException as error:
                hosted.close()
                if isinstance(error, BadEndpoint) and not isinstance(error, Away):
                    raise BadServer(str(error)) from error
                raise
        return Drawing(compact_engine(store, self.engine, self.draws, self.hosts))

    def run_warm(self, store: Store, work: Work[GenerateInput], warm: Drawing) -> Outcome:
        """Facts: GenerateFacts. Children are the samples: `drawn`, or `failed`. Raises EngineStopped, BadEndpoint,
        BatchWaits where requests were written down and have no results yet."""
        asks = list(self._asks(store, work.payload))
        samples = [_row(generation, warm.engine.about) for generation in warm.engine.generate(asks)]
        table = pa.Table.from_pylist(samples, schema=GENERATED_SCHEMA).sort_by(ORDER)
        children = {"drawn": Tally(), "failed": Tally()}
        for name, is_failed in (("drawn", False), ("failed", True)):
            keys = (_key(row["problem"], row["sample"]) for row in samples if (row["failure"] is not None) == is_failed)
            children[name] = Tally.of(keys)
        return Outcome(
            outputs=(put_table(store, GENERATED, table),),
            received=Tally(),
            children_in=Tally.of(_key(ask.problem, sample) for ask in asks for sample in ask.samples),
            children=children,
            facts=GenerateFacts(
                engine=warm.engine.about,
                samples=len(samples),
                failed=children["failed"].count,
                tokens=sum(row["tokens"] or 0 for row in samples),
                prompt_tokens=sum(row["prompt_tokens"] or 0 for row in samples),
                requests=sum(row["requests"] for row in samples),
                findings=warm.findings,
                load=warm.engine.load(),
            ),
        )

    def _asks(self, store: Store, payload: GenerateInput) -> Iterator[Ask]:
        """What to draw now: of each problem the samples that were lost, or the next wave."""
        turn = payload.turn
        rows = judged_rows(store, turn.judged)
        judged, unagreed = by_problem(rows), without_agreement(rows)
        lost: dict[str, dict[int, list[int]]] = {}  # problem -> attempts so far -> samples
        for row in rows:
            if row["failure"] is not None and may_be_decided(row) and row["attempt"] < turn.again_below:
                lost.setdefault(row["problem"], {}).setdefault(row["attempt"], []).append(row["sample"])
        columns = [name for name, _ in PROBLEM]
        for row in payload.posing.rows(store, columns).to_pylist():
            problem = row["id"]
            if turn.again_below:
                wanted = {attempt: tuple(samples) for attempt, samples in sorted(lost.get(problem, {}).items())}
            elif problem in unagreed:
                continue
            elif self.voters and problem not in judged:
                wanted = {0: tuple(range(self.voters))}
            else:
                wanted = {0: next_samples(judged.get(problem, {}), self.stop, self.waves)}
            prompt = prompt_of(problem_of(row), self.prompt.template)
            for attempt, samples in wanted.items():
                if samples:
                    yield Ask(problem, samples, prompt, self.prompt.system, attempt)


@dataclass(frozen=True)
class Drawing:
    """An engine, and what the probe of a server found."""

    engine: Engine
    findings: tuple[Finding, ...] = ()

    def close(self) -> None:
        """Ends the engine."""
        self.engine.close()


def compact_engine(store: Store, spec: EngineSpec, draws: Draws, hosts: Hosts) -> CompactEngine:
    """The project's engine with a model of the lake. Raises as `load_model`, ValueError for one without a tokenizer."""
    from gristmill.model.generate.engine import Engine as TokenEngine
    from gristmill.model.generate.engine import Options
    from gristmill.model.processing.detokenize import decoder

    loaded = load_model(store, spec.model, dtype=spec.dtype, device=hosts.device)
    tokenizer = Tokenizer.from_bytes(_tokenizer(store, spec, loaded.manifest))
    tokenizer.check_fits(loaded.model.config.text.vocab_size)
    options = Options(hosts.max_num_seqs, spec.context, block_size=PAGE)
    engine = TokenEngine(loaded.model, options, decoder(tokenizer))
    return CompactEngine(engine, tokenizer, draws, str(loaded.manifest))


def vllm_engine(store: Store, spec: EngineSpec, draws: Draws, hosts: Hosts) -> VllmEngine:
    """vLLM with a model of the lake. Raises as `compact_engine`; BadServer for vLLM that does not start."""
    model = resolve_usable(Versions(store), spec.model)
    tokenizer = _tokenizer(store, spec, model)
    hosted = Hosted(model, tokenizer, spec.dtype, spec.context, hosts.max_num_seqs)
    return VllmEngine(store, hosted, draws, hosts.vllm, hosts.endpoint)


def _tokenizer(store: Store, spec: EngineSpec, model: Manifest) -> bytes:
    """The tokenizer.json that is named, or that the model brings. Raises ValueError where there is none."""
    ref = tokenizer_shard(Versions(store).resolve(spec.tokenizer) if spec.tokenizer else model)
    if ref is None:
        raise ValueError(f"{spec.model} brings no tokenizer: name one in recipe.engine.tokenizer")
    return read_object(store, ref)


def _row(generation: Generation, engine: str) -> dict[str, Any]:
    return {**asdict(generation), "engine": engine}


def _key(problem: str, sample: int) -> bytes:
    return f"{problem}/{sample}".encode()
