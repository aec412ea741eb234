"""Any of datatrove's filters by name: its reason becomes the document's fate.

    datatrove: {filter: UnigramLogProbFilter, args: {logprobs_threshold: -10}}

The filter sees a document with its text, and its URL and language where they are known. It may not edit: what it writes
into the document is forgotten. A document on which it raises is quarantined, not judged. It has no measures of its
own, so that no threshold of it is replayed. Those that judge by what they saw before, or by a function, are refused.
Source: datatrove 0.10.1, pipeline/filters/base_filter.py.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter
from gristmill.filters.text.docs import Docs

_REFUSED = {
    "BaseFilter": "it is what filters derive from",
    "LambdaFilter": "a function cannot stand in a configuration",
    "SamplerFilter": "it draws at random in the order in which documents come, which is not the same in another run",
}
_AT_RANDOM = {"C4BadWordsFilter": "keep_fraction"}
"""Filters that draw at random too where this argument is more than 0, its default."""
_MOST_CHARS = 60
"""Of a reason; a filter may put the document into it."""
_SCHEMA = pa.schema([pa.field("verdict", pa.string()), pa.field("error", pa.string())])


@dataclass(frozen=True)
class DatatroveFilter(Filter[Docs]):
    """`filter`: a class of `datatrove.pipeline.filters`; `args`: what it is made with, as JSON has it."""

    filter: str
    args: Mapping[str, Any] = field(default_factory=dict, hash=False)

    name: ClassVar[str] = "datatrove"
    VERSION: ClassVar[int] = 1
    measured_with: ClassVar[frozenset[str]] = frozenset({"filter", "args"})
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType({"error": "error"})
    releases: ClassVar[tuple[str, ...]] = ("spacy",)  # whose English words most count; its own stands in `config`
    failures: ClassVar[frozenset[str]] = frozenset({"error"})

    def check(self) -> None:
        """Whether there is such a filter, and these arguments make one.

        Raises ValueError that names the field; what the filter raises while it is made, within it.
        """
        _filter_of(self.filter, json.dumps(dict(self.args), sort_keys=True))

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """What the filter says of each document: `verdict`, its reason in small letters and underscores, null where it
        keeps it; or `error`, what it raised, without the document's words."""
        from datatrove.data import Document
        from datatrove.pipeline.filters.base_filter import get_filter_result

        filter_ = _filter_of(self.filter, json.dumps(dict(self.args), sort_keys=True))
        nothing = [None] * len(docs)
        urls = nothing if docs.urls is None else docs.urls.to_pylist()
        languages = nothing if docs.languages is None else docs.languages.to_pylist()
        verdicts: list[str | None] = []
        errors: list[str | None] = []
        for row, text in enumerate(docs.strings):
            known = {"url": urls[row], "language": languages[row]}
            document = Document(text=text, id=str(row), metadata={k: v for k, v in known.items() if v is not None})
            error = reason = None
            try:
                kept, reason = get_filter_result(filter_.filter_batch([document])[0])
            except Exception as raised:  # whatever a filter of somebody else's can do; the record is quarantined for it
                kept, error = True, type(raised).__name__
            verdicts.append(None if kept else _reason(reason))
            errors.append(error)
        return pa.record_batch([pa.array(verdicts, pa.string()), pa.array(errors, pa.string())], schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """Its verdict, or `error`."""
        failed = pc.if_else(pc.is_valid(measures["error"]), "error", None)
        reasons = pc.coalesce(failed, measures["verdict"]).cast(pa.string())
        named = pc.binary_join_element_wise(pa.scalar(self.name), reasons, ".", null_handling="emit_null")
        return named if isinstance(named, pa.StringArray) else pa.array(named, pa.string())

    def config(self) -> dict[str, Any]:
        """The filter, what it is made with, and whose it is: another datatrove may judge otherwise. Files that its
        arguments name (a model, a list) count by content too. Raises OSError for one that cannot be read."""
        config = {
            "filter": self.filter,
            "args": dict(self.args),
            "datatrove": importlib.metadata.version("datatrove"),
        }
        files = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in sorted(_files(self.args))}
        return config | ({"files_sha256": files} if files else {})


def _files(value: object) -> set[str]:
    """The files that stand in arguments, wherever in them."""
    if isinstance(value, str):
        try:
            return {value} if value and Path(value).is_file() else set()
        except (OSError, ValueError):  # too long for a name, or with a NUL: an expression, not a path
            return set()
    if isinstance(value, Mapping):
        return set().union(*map(_files, value.values()))
    return set().union(*map(_files, value)) if isinstance(value, list | tuple) else set()


def _reason(reason: object) -> str:
    """datatrove's reason as a part of ours."""
    words = re.sub(r"[^0-9a-z]+", "_", str(reason or "dropped").lower()).strip("_")
    return words[:_MOST_CHARS] or "dropped"


@lru_cache(maxsize=16)
def _filter_of(name: str, args: str) -> Any:
    """The filter of this process. `args`: JSON."""
    from datatrove.pipeline import filters
    from datatrove.pipeline.filters.base_filter import BaseFilter

    if name in _REFUSED:
        raise ValueError(f"datatrove.filter: {name} cannot be used here: {_REFUSED[name]}")
    known = {key: value for key, value in vars(filters).items() if isinstance(value, type)}
    classes = {key: value for key, value in known.items() if issubclass(value, BaseFilter) and key not in _REFUSED}
    if name not in classes:
        raise ValueError(f"datatrove.filter: there is no {name}; there are {', '.join(sorted(classes))}")
    arguments = json.loads(args)
    if arguments.get(_AT_RANDOM.get(name, "")):
        raise ValueError(f"datatrove.args: {_AT_RANDOM[name]} has to be 0: with more {_REFUSED['SamplerFilter']}")
    try:
        return classes[name](**arguments)
    except Exception as error:  # a filter of somebody else's may raise anything while it is made
        raise ValueError(f"datatrove.args: {name} cannot be made with {args}: {error}") from error
