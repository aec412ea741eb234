"""The card of an exported dataset: README.md with the front matter that the hub reads.

Front matter: sizes, features, languages, licence, which files are which split. Below it, for people: the funnel, shares
of languages, how it was made, what it comes from. Whatever foreign text stands in it (labels, reasons, file names) is
written so that it cannot end a cell, a line or the front matter.
Source: the hub's dataset cards (https://huggingface.co/docs/hub/datasets-cards) and its specification of metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from gristmill.lake.query.query import Node
from gristmill.stages.exchange.about import About, name_of, without_places
from gristmill.stages.exchange.features import yaml_features

_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000)
_WORDS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_MOST_ROWS = 40
_MOST_LANGUAGES = 100
_DEEPEST = 8
"""Levels of a lineage."""


def card(about: About) -> str:
    """README.md of the folder."""
    text = yaml.safe_dump(front_matter(about), sort_keys=False, allow_unicode=True, width=120)
    return "\n".join(["---", text.rstrip("\n"), "---", "", *_lines(about)]) + "\n"


def front_matter(about: About) -> dict[str, Any]:
    """What the hub reads."""
    languages = [label for label in about.languages if _LANGUAGE.fullmatch(str(label))]
    matter: dict[str, Any] = {"pretty_name": about.title, "license": about.published.license or "unknown"}
    if languages:
        matter["language"] = languages[:_MOST_LANGUAGES]
    matter["size_categories"] = [size_category(about.records)]
    matter["tags"] = ["gristmill", "croissant", about.manifest.form]
    pattern = "data/*.tar" if about.target == "webdataset" else "data/*.parquet"
    matter["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": pattern}]}]
    if about.schema is not None:
        split = {"name": "train", "num_bytes": about.bytes, "num_examples": about.records}
        sizes = {"download_size": about.bytes, "dataset_size": about.bytes}
        matter["dataset_info"] = {"features": yaml_features(about.schema), "splits": [split], **sizes}
    return matter


def size_category(records: int) -> str:
    """`1K<n<10K`, as the hub has them."""
    if records < _SIZES[0]:
        return "n<1K"
    at = sum(records >= size for size in _SIZES)
    return f"n>{_WORDS[-1]}" if at == len(_SIZES) else f"{_WORDS[at - 1]}<n<{_WORDS[at]}"


def _lines(about: About) -> Iterator[str]:
    m = about.manifest
    yield from (f"# {about.title}", "")
    yield (
        f"{about.records:,} {m.layout.called} in {_counted(len(about.files), 'file')} ({about.bytes:,} bytes), made by"
        f" gristmill. Digest of the version: `{m.digest}`."
    )
    yield from ("", *_loading(about))
    if about.languages:
        yield from ("", "## Languages", "", *_languages(about.languages))
    yield from ("", "## Records", "", *_balance(about))
    if m.funnel:
        yield from ("", "### Funnel", "", *_funnel(about))
    yield from ("", "## Licence", "", _licence(about))
    yield from ("", "## How it was made", "", *_process(about))
    yield from ("", "## Where it comes from", "", *_lineage(about.lineage))
    yield from ("", *_inputs(about))
    yield from ("", "## Files", "", "| file | records | bytes | sha256 |", "|---|---:|---:|---|")
    for file in about.files[:_MOST_ROWS]:
        yield f"| {cell(file.name)} | {file.records:,} | {file.bytes:,} | `{file.sha256}` |"
    if len(about.files) > _MOST_ROWS:
        yield f"| and {len(about.files) - _MOST_ROWS:,} more, in `croissant.json` | | | |"


def _loading(about: About) -> Iterator[str]:
    yield from ("```python", "# in this folder; the name of a repository on the hub in place of the dot")
    if about.target == "webdataset":
        yield from ("import glob", "import webdataset", "")
        yield 'records = webdataset.WebDataset(sorted(glob.glob("data/*.tar")), shardshuffle=False).decode()'
    else:
        yield from ("import datasets", "", 'records = datasets.load_dataset(".", split="train")')
    yield "```"


def _languages(languages: Mapping[str, int]) -> Iterator[str]:
    total = sum(languages.values()) or 1
    yield from ("| language | records | share |", "|---|---:|---:|")
    for label, count in list(languages.items())[:_MOST_ROWS]:
        yield f"| {cell(str(label))} | {count:,} | {count / total:.1%} |"
    rest = list(languages.values())[_MOST_ROWS:]
    if rest:
        yield f"| {len(rest):,} others | {sum(rest):,} | {sum(rest) / total:.1%} |"


def _balance(about: About) -> Iterator[str]:
    m = about.manifest
    yield "Every record that came in has one fate; this is checked when a version is committed."
    yield from ("", "| came in | kept | dropped | quarantined |", "|---:|---:|---:|---:|")
    yield f"| {m.received.count:,} | {m.kept.count:,} | {m.dropped.count:,} | {m.quarantined.count:,} |"
    if m.samples is not None:
        verdicts = ", ".join(f"{tally.count:,} {cell(name)}" for name, tally in m.verdicts.items())
        yield from ("", f"Of {m.samples.count:,} samples made of them: {verdicts}.")


def _funnel(about: About) -> Iterator[str]:
    yield from ("| stage | came in | passed | dropped or quarantined, by reason |", "|---|---:|---:|---|")
    for row in about.manifest.funnel:
        reasons = {**row.dropped, **row.quarantined}
        shown = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        words = ", ".join(f"{cell(reason)} ({count:,})" for reason, count in shown[:_MOST_ROWS]) or "none"
        yield f"| {cell(row.stage)} | {row.received:,} | {row.passed:,} | {words} |"


def _licence(about: About) -> str:
    if about.published.license:
        return (
            f"`{cell(about.published.license)}`, as whoever published this export says. Licences of single records are"
            " not recorded: they are those of the files that went in."
        )
    return "Not stated: licences are not recorded in a lake. They are those of the files that went in, listed below."


def _process(about: About) -> Iterator[str]:
    m = about.manifest
    commit = m.made.get("commit")
    yield f"Code: {f'commit `{cell(str(commit))}`' if commit else 'commit not known'}"
    packages = m.made.get("packages") or {}
    if packages:
        yield f"with {', '.join(f'{cell(name)} {cell(str(version))}' for name, version in sorted(packages.items()))}."
    stages = ", ".join(f"{cell(stage.name)} (version {stage.version})" for stage in m.stages)
    yield from ("", f"Stages: {stages or 'none'}.", "", "Recipe:", "")
    yield from block({"recipe": without_places(m.recipe)})


def _lineage(tree: Node) -> Iterator[str]:
    """The tree as a list, a few levels of it: a dataset that grew for years has a level a night."""
    todo, deeper = [(tree, 0)], 0
    while todo:
        node, depth = todo.pop()
        todo += [(origin, depth + 1) for origin in reversed(node.origins)]
        if depth > _DEEPEST:
            deeper += 1
            continue
        about = f" ({cell(node.role)})" if node.role else ""
        more = "; its own origins stand above" if node.repeated else ""
        withdrawn = "; withdrawn" if node.withdrawn is not None else ""
        yield f"{'  ' * depth}- {cell(node.ref)}{about}: `{node.digest}`{withdrawn}{more}"
    if deeper:
        yield from ("", f"And {_counted(deeper, 'version')} further up, which `grist lineage {cell(tree.ref)}` lists.")


def _inputs(about: About) -> Iterator[str]:
    inputs = about.manifest.inputs
    if not inputs:
        yield "It has no input files of its own: those of the versions above."
        return
    yield from (f"Read from {_counted(len(inputs), 'file')}:", "")
    yield from ("| file | records | bytes | sha256 |", "|---|---:|---:|---|")
    for file in inputs[:_MOST_ROWS]:
        yield f"| {cell(name_of(file)) or 'without a name'} | {file.records:,} | {file.bytes:,} | `{file.digest}` |"
    if len(inputs) > _MOST_ROWS:
        yield f"| and {len(inputs) - _MOST_ROWS:,} more | | | |"


def cell(text: str) -> str:
    """A foreign text in one cell of a table: no line, no bar, no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", re.sub(r"[\x00-\x1f\x7f]+", " ", text))


def block(value: Any) -> tuple[str, ...]:
    """Indented JSON in a fence that nothing in it can end."""
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return (f"{fence}json", text, fence)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
