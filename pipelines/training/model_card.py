"""The card of an exported model: what it is made of, how it was trained, on which data, by which code, how good it is.

Markdown with the front matter that model hubs read. All of it is read off manifests: its own, those of the models that
its parts come from, those of its evaluations. Nothing in it is written by hand, so nothing in it can be stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.lake.versions.manifest import Manifest, VersionRef
from gristmill.lake.versions.versions import NoSuchVersion, Versions

_EAGER = """Load it with `from_pretrained(..., attn_implementation={"vision_config": "eager"})`: with its default,
transformers 5.23 makes the image encoder causal where no patch of a call is padding, which it was not trained to be."""


_SHOWN = ("parts", "parameters", "dtype", "training", "gates", "bases")
"""Statistics that have a place of their own in the card."""


@dataclass(frozen=True)
class Written:
    """What a folder holds that the version does not. `merged`: the adapter that is part of the weights there;
    `stand_ins`: parts that its format asks for and the model has not."""

    merged: str | None = None
    stand_ins: Sequence[str] = ()


def model_card(manifest: Manifest, versions: Versions, written: Written | None = None) -> str:
    """Markdown: parts and parameters, how they were trained, what the gates said, evaluations, the versions it was made
    from with their digests, recipe, code."""
    return "\n".join(_lines(manifest, versions, written or Written())) + "\n"


def _lines(m: Manifest, versions: Versions, written: Written) -> Iterator[str]:
    yield from ("---", "library_name: transformers", "tags: [gristmill, mixture-of-loras]", "---", "", f"# {m}", "")
    yield f"Made by gristmill. Digest of its files: `{m.digest}`."
    yield from ("", "## Parts", "", "| part | parameters |", "|---|---:|")
    for part, count in m.statistics["parts"].items():
        yield f"| {part} | {count:,} |"
    yield f"| all | {m.statistics['parameters']:,} |"
    yield from ("", f"Stored as {m.statistics['dtype']}.", *_changes(m, written))
    if "vision_encoder" in (*m.statistics["parts"], *written.stand_ins):
        yield from ("", _EAGER)
    yield from _training(m, versions)
    yield from _evaluations(m, versions)
    if figures := {name: value for name, value in m.statistics.items() if name not in _SHOWN}:
        yield from ("", "## Figures", "", *_block(figures))
    yield from ("", "## Data", "")
    yield from _data(m, versions)
    if m.inputs:
        yield from ("Read from these files:", "", "| file | sha256 | bytes |", "|---|---|---:|")
        yield from (f"| {', '.join(file.names)} | `{file.digest}` | {file.bytes:,} |" for file in m.inputs)
    yield from ("", "## Recipe", "", *_block({"stages": [stage.model_dump() for stage in m.stages], **m.recipe}))
    yield from ("", "## Code", "", f"Commit {m.made.get('commit') or 'not known'}, with these packages:", "")
    packages = m.made.get("packages") or {}
    yield ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))


def _changes(m: Manifest, written: Written) -> Iterator[str]:
    """What this folder holds otherwise than the version."""
    if written.merged is not None:
        left = [part.removeprefix("lora_") for part in m.statistics["parts"] if part.startswith("lora_")]
        left.remove(written.merged)
        others = f" The adapter {left[0]} belongs to the model without it, and is left out." if left else ""
        yield ""
        yield (
            f"**The adapter `{written.merged}` is part of the language model's weights here**: all tokens have it, also"
            f" those of texts, whose answers are not those of the model without it.{others}"
        )
    if written.stand_ins:
        yield ""
        yield (
            f"The model has no {', '.join(written.stand_ins)}; the format asks for them. Those that are here are small,"
            " random and never trained: give this model nothing that goes through them."
        )


def _training(m: Manifest, versions: Versions) -> Iterator[str]:
    """The stages that made its parts, the first one first, and what the gates said of each."""
    models = [ref for ref in _ancestors(m.sources, versions, set()) if ref.role.startswith("init_from")]
    stages = [m]
    for ref in models:
        try:
            stages.append(versions.manifest(ref.dataset, ref.version))
        except NoSuchVersion:  # another lake's
            continue
    trained = [stage for stage in reversed(stages) if "training" in stage.statistics]
    if not trained:
        return
    yield from ("", "## Training", "", "| version | trained | on | steps | tokens | peak LR | loss at the end |")
    yield "|---|---|---|---:|---:|---:|---:|"
    for stage in trained:
        facts, parts = stage.statistics["training"], ", ".join(stage.recipe["stage"]["trainable"])
        on = ", ".join(str(ref) for ref in stage.sources if ref.role == "trained_on")
        loss = "none" if facts["final_loss"] is None else f"{facts['final_loss']:.4f}"
        numbers = f"{facts['steps']:,} | {facts['tokens']:,} | {facts['peak_lr']:.2e} | {loss}"
        yield f"| {stage} | {parts} | {on} | {numbers} |"
    yield from ("", "Losses are nats a token. What was asked of each result before it was committed:", "")
    for stage in trained:
        gates = stage.statistics.get("gates", {})
        reasons = "; ".join(f"{name}: {verdict['why']}" for name, verdict in gates.items())
        yield f"- {stage}: {reasons or 'nothing'}"
    if bases := m.statistics.get("bases"):
        yield from ("", "Adapters, by the digest of the language model that each was trained upon:", "")
        yield from (f"- {part}: `{digest}`" for part, digest in bases.items())


def _evaluations(m: Manifest, versions: Versions) -> Iterator[str]:
    """Every evaluation of this version in the lake, the newest of a dataset first."""
    evaluations = [
        evaluation for name in versions.names() if _judges(name, versions) for evaluation in _of(m, name, versions)
    ]
    yield from ("", "## Evaluations", "")
    if not evaluations:
        yield "None in this lake."
        return
    yield from ("| evaluation | task | metric | on | items | value | interval |", "|---|---|---|---|---:|---:|---|")
    for evaluation in evaluations:
        for score in evaluation.statistics.get("scores", ()):
            where = score["source"] or ", ".join(str(ref) for ref in evaluation.sources if ref.role == "on")
            interval = f"{score['low']:.4g} to {score['high']:.4g}"
            numbers = f"{score['items']:,} | {score['value']:.4g} | {interval}"
            yield f"| {evaluation} | {score['task']} | {score['metric']} | {where} | {numbers} |"


def _judges(name: str, versions: Versions) -> bool:
    """Whether a dataset's newest version holds verdicts: of the others, not all manifests are read."""
    latest = versions.latest(name)
    return latest is not None and versions.manifest(name, latest).form == "verdicts"


def _of(m: Manifest, name: str, versions: Versions) -> Iterator[Manifest]:
    """The versions of a dataset that evaluate `m`, the newest first, but those that were withdrawn."""
    withdrawn = versions.withdrawn(name)
    for evaluation in versions.manifests(name, newest_first=True):
        evaluated = [ref.digest for ref in evaluation.sources if ref.role == "evaluated"]
        if m.digest in evaluated and evaluation.version not in withdrawn:
            yield evaluation


def _data(m: Manifest, versions: Versions) -> Iterator[str]:
    """Every version that this one comes from, once, the nearest first."""
    ancestors = list(_ancestors(m.sources, versions, set()))
    if not ancestors:
        yield "No version of this lake was used to make it: it was taken in as it is."
        yield ""
        return
    yield from ("| version | as | digest |", "|---|---|---|")
    yield from (f"| {ref} | {ref.role} | `{ref.digest}` |" for ref in ancestors)
    yield from ("", "Licences of the data are not recorded in the lake: they are those of the files that went into it.")
    yield ""


def _ancestors(refs: Iterable[VersionRef], versions: Versions, seen: set[str]) -> Iterator[VersionRef]:
    layer = [ref for ref in refs if str(ref) not in seen]
    while layer:
        below: list[VersionRef] = []
        for ref in layer:
            if str(ref) in seen:
                continue
            seen.add(str(ref))
            yield ref
            try:
                below += versions.manifest(ref.dataset, ref.version).sources
            except NoSuchVersion:  # another lake's: its digest says which it was
                continue
        layer = below


def _block(values: dict[str, Any]) -> tuple[str, ...]:
    return "```json", json.dumps(values, indent=1, ensure_ascii=False), "```"
