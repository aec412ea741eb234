"""The graph of a kickoff: nodes in an order in which each comes after those that it needs, checked before any starts.

A node is a pipeline's config in which some versions are still references. Whether it is a config at all is seen before
they are known, with stand-ins in their place; `Node.config` puts the exact versions there. Of a recipe of training
stages a node is one stage, which takes its parts from the nodes of the stages that it begins with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from gristmill.lake.inputs.sources import is_local
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.kickoff.config import KickoffConfig, NodeConfig
from gristmill.pipelines.kickoff.refs import Ref, mapped, references, replaced, with_paths
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import BadConfig, lay_over, load, validate
from gristmill.pipelines.settings.shipped import find_config
from gristmill.pipelines.training.spec import STAGE, StageSpec

_STAND_IN = 900_000_000
"""Numbers of versions above this stand for references. No dataset gets there: a slot has eight digits."""


@dataclass(frozen=True)
class Node:
    """`given`: as the file has it; `data`: its config, still with references; `needs`: nodes that come before it.
    `outline`: the config with stand-ins, by which it is known what it makes; `stands_for`: stand-in -> reference."""

    name: str
    given: NodeConfig
    data: Mapping[str, Any]
    needs: tuple[str, ...]
    outline: PipelineConfig
    stands_for: Mapping[str, Ref] = field(default_factory=dict)

    @property
    def pipeline(self) -> str:
        """The name of the pipeline."""
        return self.outline.pipeline

    @property
    def makes(self) -> Mapping[str, Form]:
        """Dataset -> form of its versions, the last one last."""
        return self.outline.recipe.makes()

    def config(self, versions: Mapping[str, Sequence[Manifest]]) -> PipelineConfig:
        """The config with exact versions. `versions`: those that the nodes it needs came to, by node. Raises BadConfig,
        which begins with the node."""
        by_ref = {ref: _version_of(ref, versions[ref.node]) for ref in self.stands_for.values()}
        with naming(self.name):
            return _validated(self.data, replaced(self.data["recipe"], by_ref.__getitem__))


@dataclass(frozen=True)
class Graph:
    """Nodes by name, each after those that it needs."""

    nodes: Mapping[str, Node]

    @classmethod
    def of(cls, config: KickoffConfig, lake: str) -> Graph:
        """Raises BadConfig with the key of what cannot be: an unknown node, a circle, a config that is none."""
        paths = {name: str(Path(at).absolute()) if is_local(at) else at for name, at in config.paths.items()}
        files: dict[str, dict[str, Any]] = {}  # each is read once
        data: dict[str, dict[str, Any]] = {}
        for name, given in config.nodes.items():
            with naming(name):
                if given.config not in files:
                    files[given.config] = load(find_config(Path(given.config)))
                data[name] = _laid(given, files[given.config], config.run.each, paths, lake)
        data = _with_stages(config.nodes, data)
        needs = {name: _needs(name, given.needs, data) for name, given in config.nodes.items()}
        for name in () if config.report is None else config.report.nodes:
            if name not in data:
                raise BadConfig(f"report.nodes: {name!r}: there is no such node; there are {', '.join(data)}")
        nodes: dict[str, Node] = {}
        for name in _in_order(needs):
            with naming(name):
                nodes[name] = _node(name, config.nodes[name], data[name], needs[name], nodes)
        return cls(nodes)

    def before(self, name: str) -> set[str]:
        """All nodes that come before this one, at whatever distance."""
        earlier: set[str] = set()
        waiting = list(self.nodes[name].needs)
        while waiting:
            need = waiting.pop()
            if need not in earlier:
                earlier.add(need)
                waiting += self.nodes[need].needs
        return earlier

    def by_urgency(self, names: Sequence[str]) -> list[str]:
        """These nodes, those first that the longest chains of others wait for: what ends such a chain late ends the
        kickoff late, while what nothing waits for fills any gap."""
        longest = dict.fromkeys(self.nodes, 0)
        for name in reversed(list(self.nodes)):
            for need in self.nodes[name].needs:
                longest[need] = max(longest[need], longest[name] + 1)
        return sorted(names, key=lambda name: -longest[name])

    def selected(self, only: Sequence[str], since: Sequence[str]) -> list[str]:
        """The nodes that are asked for, in order: those of `only`, those of `since` with all that come after them; all
        where neither is given. Raises BadConfig for an unknown one."""
        if unknown := [name for name in (*only, *since) if name not in self.nodes]:
            raise BadConfig(f"{unknown[0]}: there is no such node; there are {', '.join(self.nodes)}")
        if not only and not since:
            return list(self.nodes)
        return [name for name in self.nodes if name in only or ({name} | self.before(name)) & set(since)]


def _node(
    name: str, given: NodeConfig, data: Mapping[str, Any], needs: tuple[str, ...], before: Mapping[str, Node]
) -> Node:
    """A node after those `before`. Raises BadConfig."""
    stands_for = _stand_ins(data["recipe"], before)
    stand_ins = {ref: text for text, ref in stands_for.items()}
    outline = _validated(data, replaced(data["recipe"], stand_ins.__getitem__))
    if outline.recipe.limit is not None:
        raise BadConfig("recipe.limit: a preview, on which nothing is built; leave it out of a kickoff")
    return Node(name, given, data, needs, outline, stands_for)


@contextmanager
def naming(node: str) -> Iterator[None]:
    """Lets each line of a BadConfig begin with the node that it is about."""
    try:
        yield
    except BadConfig as error:
        lines = str(error).split("\n")
        raise BadConfig("\n".join(f"nodes.{node}: {line}" for line in lines)) from error


def _laid(
    given: NodeConfig, base: Mapping[str, Any], each: Mapping[str, Any], paths: Mapping[str, str], lake: str
) -> dict[str, Any]:
    """The node's file, `base`, with its keys over it. Raises BadConfig."""
    kind = base.get("pipeline")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise BadConfig(f"config: {given.config}: pipeline: {kind!r}; allowed: {', '.join(PIPELINES)}")
    run = {**each, **with_paths(given.run, paths, "run"), "lake": lake}
    over = {"recipe": with_paths(given.recipe, paths, "recipe"), "run": run}
    data = lay_over(PIPELINES[kind], base, over)
    if given.stage:
        stage = with_paths(given.stage, paths, "stage")
        data["recipe"] = {**data["recipe"], "stages": [_stage(kind, data["recipe"], stage)], "until": ""}
    return data


def _stage(kind: str, recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The stage of a recipe that a node trains. Raises BadConfig."""
    stages = recipe.get("stages", []) if kind == "train" else []
    names = [stage.get("name") for stage in stages]
    if given.get("name") not in names:
        there = ", ".join(map(str, names)) or f"none in a pipeline {kind}"
        raise BadConfig(f"stage.name: {given.get('name')!r}: the stages of config are {there}")
    return lay_over(StageSpec, stages[names.index(given["name"])], given)


def _with_stages(given: Mapping[str, NodeConfig], data: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With references to nodes in the place of earlier stages of the same recipe."""
    trained: dict[tuple[Any, ...], str] = {}
    for name, node in given.items():
        if node.stage:
            trained[node.config, data[name]["recipe"].get("dataset"), node.stage["name"]] = name
    return {
        name: _from_nodes(name, node.config, data[name], trained) if node.stage else data[name]
        for name, node in given.items()
    }


def _from_nodes(name: str, config: str, data: dict[str, Any], trained: Mapping[tuple[Any, ...], str]) -> dict[str, Any]:
    """A node that trains a stage, with `stage:v1` as the node that trains v1. Raises BadConfig where none does."""

    def origin(text: str) -> str:
        if not text.startswith(STAGE):
            return text
        earlier, slash, part = text.removeprefix(STAGE).partition("/")
        node = trained.get((config, data["recipe"].get("dataset"), earlier))
        if node is None:
            raise BadConfig(
                f"nodes.{name}: stage.init_from: {text!r}: no node trains the stage {earlier} of {config} for the same"
                " dataset; add one, or name a version"
            )
        return f"{Ref(node, '')}{slash}{part}"

    (stage,) = data["recipe"]["stages"]
    fields = {key: mapped(stage[key], origin) for key in ("init_from", "reference") if key in stage}
    return {**data, "recipe": {**data["recipe"], "stages": [{**stage, **fields}]}}


def _needs(name: str, also: Sequence[str], data: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
    """The nodes that one needs. Raises BadConfig for one that is not there."""
    with naming(name):
        named = [(key, ref.node) for key, ref in references(data[name]["recipe"])]
        pairs = [*(("needs", need) for need in also), *named]
        for key, need in pairs:
            if need not in data:
                raise BadConfig(f"{key}: {need!r}: there is no such node; there are {', '.join(data)}")
    return tuple(dict.fromkeys(need for _, need in pairs))


def _in_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Each node after those that it needs, else as they stand in the file. Raises BadConfig for a circle."""
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        raise BadConfig(f"nodes: {' needs '.join(reversed(error.args[1]))}: nothing could come first") from None
    place = {name: number for number, name in enumerate(needs)}
    ready: list[str] = []
    order: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=place.__getitem__)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def _stand_ins(recipe: Mapping[str, Any], nodes: Mapping[str, Node]) -> dict[str, Ref]:
    """Stand-in -> reference, of each in a recipe. Raises BadConfig for a version that its node does not make."""
    stand_ins: dict[str, Ref] = {}
    for key, ref in references(recipe):
        if ref not in stand_ins.values():
            stand_ins[f"{dataset_of(ref, nodes[ref.node], key)}@v{_STAND_IN + len(stand_ins) + 1}"] = ref
    return stand_ins


def dataset_of(ref: Ref, node: Node, key: str) -> str:
    """The dataset that a reference means. Raises BadConfig, which begins with `key`, where its node makes another."""
    datasets = list(node.makes)
    wanted = f"{node.outline.recipe.dataset}{ref.link}" if ref.link else datasets[-1]
    if wanted not in datasets:
        raise BadConfig(f"{key}: {ref}: {ref.node} makes {', '.join(datasets)}, and no {wanted}")
    return wanted


def _version_of(ref: Ref, versions: Sequence[Manifest]) -> str:
    """The version that a reference came to."""
    if not ref.link:
        return str(versions[-1])
    alike = [manifest for manifest in reversed(versions) if manifest.dataset.endswith(ref.link)]
    return str(min(alike, key=lambda manifest: len(manifest.dataset)))  # all begin with the node's own: no more between


def _validated(data: Mapping[str, Any], recipe: Any) -> PipelineConfig:
    """The config with this recipe in place of its own. Raises BadConfig."""
    return validate(PIPELINES[data["pipeline"]], {**data, "recipe": recipe})
