"""The card of an exported model: what it is made of, from which data, by which code; all of it read off its manifest.

Markdown with the front matter that model hubs read. Nothing in it is written by hand, so nothing in it can be stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from gristmill.lake.versions.manifest import Manifest, VersionRef
from gristmill.lake.versions.versions import NoSuchVersion, Versions

_EAGER = """Load it with `from_pretrained(..., attn_implementation={"vision_config": "eager"})`: with its default,
transformers 5.23 makes the image encoder causal where no patch of a call is padding, which it was not trained to be."""


def model_card(manifest: Manifest, versions: Versions) -> str:
    """Markdown: parts and parameters, recipe, the versions it was made from with their digests, figures, code."""
    return "\n".join(_lines(manifest, versions)) + "\n"


def _lines(m: Manifest, versions: Versions) -> Iterator[str]:
    yield from ("---", "library_name: transformers", "tags: [gristmill, mixture-of-loras]", "---", "", f"# {m}", "")
    yield f"Made by gristmill. Digest of its files: `{m.digest}`."
    yield from ("", "## Parts", "", "| part | parameters |", "|---|---:|")
    for part, count in m.statistics["parts"].items():
        yield f"| {part} | {count:,} |"
    yield f"| all | {m.statistics['parameters']:,} |"
    yield from ("", f"Stored as {m.statistics['dtype']}.")
    if "vision_encoder" in m.statistics["parts"]:
        yield from ("", _EAGER)
    figures = {name: value for name, value in m.statistics.items() if name not in ("parts", "parameters", "dtype")}
    if figures:
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


def _data(m: Manifest, versions: Versions) -> Iterator[str]:
    """Every version that this one comes from, once, the nearest first."""
    ancestors = list(_ancestors(m.sources, versions, set()))
    if not ancestors:
        yield "No version of this lake was used to make it: it was taken in as it is."
        yield ""
        return
    yield from ("| version | as | digest |", "|---|---|---|")
    yield from (f"| {ref} | {ref.role} | `{ref.digest}` |" for ref in ancestors)
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
