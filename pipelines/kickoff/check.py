"""What can be refused of a whole kickoff before its first node starts: missing files and versions, and wrong ones.

A reference is held against what its node makes, a version by its name against the lake, an input against its store.
What only a run can tell (a damaged file, weights that cannot be drawn) is its node's own to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from gristmill.lake.inputs.sources import is_local
from gristmill.lake.versions.form import FORMS
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.inputs import input_files
from gristmill.pipelines.frame.recipe import InputRecipe, PipelineConfig
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.kickoff.graph import Graph, Node, dataset_of, naming
from gristmill.pipelines.kickoff.named import Named, named
from gristmill.pipelines.settings.config import BadConfig, check_inputs_absolute


def check(graph: Graph, names: Iterable[str], versions: Versions, in_job: bool = False) -> None:
    """Raises BadConfig with a line for each mistake in these nodes. `in_job`: they run elsewhere, where a relative
    address means nothing."""
    mistakes: list[str] = []
    for name in names:
        try:
            with naming(name):
                _check_node(graph, graph.nodes[name], versions)
                for key, addresses in graph.nodes[name].outline.recipe.addresses().items() if in_job else ():
                    check_inputs_absolute(addresses, key)
        except BadConfig as error:
            mistakes.append(str(error))
    if mistakes:
        raise BadConfig("\n".join(mistakes))


def _check_node(graph: Graph, node: Node, versions: Versions) -> None:
    for version in named(node.outline.recipe):
        _check_named(graph, node, version, versions)
    if not node.stands_for:
        node.outline.check(versions)
    _check_files(node.outline)


def _check_named(graph: Graph, node: Node, version: Named, versions: Versions) -> None:
    key, ref, fits, wanted = version
    if not ref:
        raise BadConfig(f"{key} is empty: give node:NAME, or an exact version; it has to hold {wanted}")
    if ref not in node.stands_for:
        manifest = exact(versions, ref, key)
        if not fits(manifest.layout):
            raise BadConfig(f"{key}: {ref} holds {manifest.layout.called}; it has to hold {wanted}")
        return
    reference = node.stands_for[ref]
    source = graph.nodes[reference.node]
    layout = FORMS[source.makes[dataset_of(reference, source, key)]]
    if not fits(layout):
        raise BadConfig(f"{key}: {reference} makes {layout.called}; it has to hold {wanted}")


def _check_files(config: PipelineConfig) -> None:
    """Raises BadConfig for inputs that are not there."""
    recipe = config.recipe
    if isinstance(recipe, InputRecipe):
        if faults := input_files(recipe.inputs).faults:
            raise BadConfig(f"recipe.inputs: {faults[0]}")
        return
    for key, addresses in recipe.addresses().items():
        for address in addresses:
            if is_local(address) and not os.path.exists(address.removeprefix("file://")):
                raise BadConfig(f"{key}: {address} does not exist")
