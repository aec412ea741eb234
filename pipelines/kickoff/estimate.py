"""How long a node will take, by the receipts of the last time that its datasets were made; unknown where there is none.

What counts is the work: seconds of every piece that a version's receipts tell, whenever it was done. Where it is known
how much there is to do now (bytes of new inputs or of sources, tokens of a training), it is scaled by that; else it is
taken to be as much as the last time. A dataset that was never made is judged by another of the same pipeline, if the
kickoff has one. Nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gristmill.lake.inputs.notes import known
from gristmill.lake.inputs.sources import input_info
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_object
from gristmill.lake.versions.growth import ancestry
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.recipe import InputRecipe, PipelineConfig
from gristmill.pipelines.kickoff.config import KickoffRun
from gristmill.pipelines.kickoff.graph import Graph, Node
from gristmill.pipelines.kickoff.named import named
from gristmill.pipelines.kickoff.room import Room, Share, pieces_of, share_of
from gristmill.pipelines.train import TrainRecipe
from gristmill.stages.read.listing import find_inputs


class Estimate(NamedTuple):
    """`work`: seconds of work, each on a CPU, or on `cpus` and `gpus` where one piece holds more; `seconds`: as long as
    somebody waits. `basis`: the versions whose receipts say so, and `scale`: how much more there is to do, where that
    is known."""

    work: float
    seconds: float
    cpus: float
    gpus: float
    basis: tuple[str, ...]
    scale: float | None

    def cost(self, run: KickoffRun) -> float | None:
        """By the configured prices; None where one that is needed is not configured."""
        cpu, gpu = run.cost_per_cpu_hour, run.cost_per_gpu_hour
        if cpu is None or (self.gpus and gpu is None):
            return None
        return self.work / 3600 * (self.cpus * cpu + self.gpus * (gpu or 0))


@dataclass(frozen=True)
class Estimator:
    """Looks receipts up in a lake, for the nodes of a graph."""

    graph: Graph
    store: Store

    @cached_property
    def versions(self) -> Versions:
        """Of the lake."""
        return Versions(self.store)

    def of(self, node: Node, config: PipelineConfig | None) -> Estimate | None:
        """None where no receipt says anything. `config`: with exact versions, if they are known yet."""
        last = [self._last(node, number) for number in range(len(node.makes))]
        versions = [manifest for manifest in last if manifest is not None]
        works = [self._work(manifest) for manifest in versions]
        if None in works or len(versions) < len(last):
            return None
        then, now = _amount(node, versions), self._amount_now(node, config, versions)
        scale = now / then if now is not None and then else None
        work = (1 if scale is None else scale) * sum(work or 0 for work in works)
        side_by_side, held = pieces_of(node.outline)
        return Estimate(work, work / side_by_side, *held, tuple(map(str, versions)), scale)

    def _last(self, node: Node, number: int) -> Manifest | None:
        """The latest version of what a node makes; else of what others make by the same pipeline, the newest one."""
        forms = list(node.makes.values())
        others = [other for other in self.graph.nodes.values() if other.pipeline == node.pipeline]
        alike = [list(other.makes)[number] for other in others if list(other.makes.values()) == forms]
        if isinstance(node.outline.recipe, TrainRecipe):  # a stage says nothing about another one
            alike = []
        for candidates in ([list(node.makes)[number]], alike):
            numbers = {name: self.versions.latest(name) for name in candidates}
            there = [self.versions.manifest(name, latest) for name, latest in numbers.items() if latest is not None]
            if there:
                return max(there, key=lambda manifest: manifest.made.get("at", ""))
        return None

    def _work(self, manifest: Manifest) -> float | None:
        """Seconds of all pieces of work that a version's receipts tell; None where it keeps none."""
        bundles = [ref for ref in manifest.attachments if ref.kind == "receipts"]
        if not bundles:
            return None
        lines = (line for ref in bundles for line in read_object(self.store, ref).splitlines())
        return sum(_seconds(json.loads(line)) for line in lines)

    def _amount_now(self, node: Node, config: PipelineConfig | None, last: Sequence[Manifest]) -> float | None:
        """In the unit of `_amount`."""
        recipe = node.outline.recipe
        if isinstance(recipe, InputRecipe):
            return self._new_bytes(recipe, next(iter(node.makes)))
        if isinstance(recipe, TrainRecipe):
            steps = [spec.steps for spec in recipe.trained_now]
            per_step = [_tokens(manifest) / max(1, _steps(manifest)) for manifest in last]
            if None in steps:
                return None
            return sum((count or 0) * tokens for count, tokens in zip(steps, per_step, strict=True))
        if config is None:
            return None
        sources = [self.versions.resolve(version.ref) for version in named(config.recipe)]
        records = [source for source in sources if source.layout.has_records]
        return sum(ref.bytes for source in records for ref in source.shards)

    def _new_bytes(self, recipe: InputRecipe, dataset: str) -> int:
        """Of the inputs that a run would take into a dataset."""
        seen: set[str] = set()
        if recipe.extends is not None and (latest := self.versions.latest(dataset)) is not None:
            seen = ancestry(self.versions, dataset, latest)
        total = 0
        for info in map(input_info, find_inputs(recipe.inputs)):
            note = known(self.store, info)
            total += 0 if note is not None and note[0] in seen else info.size
        return total


def _amount(node: Node, versions: Sequence[Manifest]) -> float:
    """How much versions were made from: tokens of a training, else bytes; of a chain that begins with input files,
    those of its first link, from which the others follow."""
    if isinstance(node.outline.recipe, InputRecipe):
        versions = versions[:1]
    return sum(_tokens(manifest) or sum(file.bytes for file in manifest.inputs) for manifest in versions)


def _tokens(manifest: Manifest) -> float:
    return float(manifest.statistics.get("training", {}).get("tokens", 0))


def _steps(manifest: Manifest) -> int:
    return int(manifest.statistics.get("training", {}).get("steps", 0))


def _seconds(receipt: Mapping[str, object]) -> float:
    """Of a piece of work; of a training those of all its steps, in whichever attempt they were done."""
    facts, info = receipt.get("facts"), receipt.get("info")
    of_steps = facts.get("seconds") if isinstance(facts, Mapping) and "steps" in facts else None
    seconds = of_steps if of_steps is not None else info.get("seconds", 0) if isinstance(info, Mapping) else 0
    return float(seconds)


def waited(graph: Graph, todo: Mapping[str, float], room: Room) -> float:
    """Seconds until all of these nodes are done, each taking so long, as `run_graph` starts them."""
    now, ends = 0.0, dict[str, float]()
    running: dict[str, tuple[float, Share]] = {}
    waiting = graph.by_urgency([name for name in graph.nodes if name in todo])
    while waiting or running:
        for name in list(waiting):
            node = graph.nodes[name]
            ready = all(need not in todo or need in ends for need in node.needs)
            if ready and room.has(share_of(node.outline), [share for _, share in running.values()]):
                running[name] = (now + todo[name], share_of(node.outline))
                waiting.remove(name)
        first = min(running, key=lambda name: running[name][0])
        now, _ = running.pop(first)
        ends[first] = now
    return now
