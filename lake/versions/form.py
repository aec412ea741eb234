"""Forms: what the records of a version are, and therefore what its shards are.

A manifest names its form; FORMS says the rest of it, for everybody who opens shards: reading, sampling, checking out,
verifying, taking down, drawing. Nobody tells a form from the kind of a shard or the name of a column: a pipeline that
makes records of a new form adds its name and its row here. Formats 1 and 2 of the manifest did not name it; `form_of`
is the one place that knows what their releases wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gristmill.lake.versions.folded import KIND
from gristmill.lake.versions.statistics import EvaluationStatistics, TextStatistics, WindowStatistics

Form = Literal[
    "documents",
    "samples",
    "preferences",
    "graded",
    "images",
    "audio",
    "windows",
    "verdicts",
    "rollouts",
    "tokenizer",
    "classifier",
    "model",
]
Holds = Literal["rows", "groups", "index", "bytes"]
Unit = Literal["row", "group", "stretch"]


@dataclass(frozen=True)
class ShardKind:
    """One kind of object that shards can be. `kind`: as its pointer says.

    `holds`: rows (Parquet, one record a row), groups (a WebDataset tar; its index follows it in the list of shards, and
    a table of members in the ledgers says which records lie in which group), index (of the tar before it), or bytes
    that are no records. `unit`: what of it goes with a record that is taken down; None: nothing does. `suffix`: of its
    file where a version is checked out.
    """

    kind: str
    holds: Holds
    suffix: str
    unit: Unit | None = None


TABLE = ShardKind("shard", "rows", "parquet", "row")
TAR = ShardKind("tar", "groups", "tar", "group")
PACK = ShardKind("pack", "groups", "tar", "stretch")
INDEX = ShardKind("index", "index", "index.parquet")
TOKENIZER = ShardKind("tokenizer", "bytes", "tokenizer.json")
CLASSIFIER = ShardKind("classifier", "bytes", "bin")
SHAPE = ShardKind("model", "bytes", "model.json")
WEIGHTS = ShardKind("weights", "bytes", "safetensors")


@dataclass(frozen=True)
class Layout:
    """What the shards of a form are.

    `called`: what a version holds, in words. `kinds`: what each of its shards can be. `id_column`: of their rows, the
    column with the record's id; None where shards are no tables. `one_each`: whether shards hold every kept record
    once, so that both can be compared; else they hold what was made of records. `remade`: why a takedown cannot write
    shards anew without a record, so that the version is withdrawn and made again; None: it can. `shown`: what `sample`
    draws from kept records, `text` the column that it shows; `statistics`: how the version's statistics are read; None:
    there is nothing of the kind. `kept_once`: whether no id is kept twice; else a record may be in two sources, or in
    several pieces. `children`: the column with what was drawn of a record (lake/accounts/fan.py); None: nothing is.
    """

    called: str
    kinds: tuple[ShardKind, ...]
    id_column: str | None = None
    one_each: bool = False
    remade: str | None = None
    shown: Literal["texts", "stretches"] | None = None
    statistics: type[TextStatistics] | type[WindowStatistics] | type[EvaluationStatistics] | None = None
    text: str = "text"
    kept_once: bool = True
    children: str | None = None

    def kind(self, name: str) -> ShardKind | None:
        """The kind that a shard's pointer names; None for one that this form does not have."""
        return next((kind for kind in self.kinds if kind.kind == name), None)

    def holds(self, name: str) -> Holds | None:
        """What shards of this kind hold; None for a kind that this form does not have."""
        kind = self.kind(name)
        return None if kind is None else kind.holds

    def id_column_of(self, name: str) -> str | None:
        """The column with the ids of records in shards of this kind; None if they are no tables of records."""
        return self.id_column if self.holds(name) == "rows" else None

    @property
    def is_table(self) -> bool:
        """Whether every shard is a Parquet table of records."""
        return all(kind.holds == "rows" for kind in self.kinds)

    @property
    def has_records(self) -> bool:
        """Whether shards hold anything of records: a tokenizer or a model does not."""
        return any(kind.unit is not None for kind in self.kinds)


def _texts(called: str, *more: ShardKind) -> Layout:
    return Layout(called, (TABLE, *more), "id", one_each=True, shown="texts", statistics=TextStatistics)


FORMS: Mapping[Form, Layout] = {
    "documents": _texts("documents"),
    "samples": _texts("samples"),
    "preferences": _texts("pairs of preferences"),
    "graded": _texts("samples with advantages"),  # right ones and wrong ones, as a policy drew them
    # Media lie raw in the record's row, or, where rows would be too large for a table, as a group of files in a tar.
    "images": _texts("images", TAR, INDEX),
    "audio": _texts("audio", TAR, INDEX),
    "windows": Layout("packed windows", (PACK, INDEX), shown="stretches", statistics=WindowStatistics, kept_once=False),
    "verdicts": Layout(
        "verdicts",
        (TABLE,),
        "id",
        remade="its records are a model's answers to others",
        shown="texts",
        statistics=EvaluationStatistics,
        text="answer",
        kept_once=False,
    ),
    # Problems, each with its samples; these have a ledger of their own (lake/accounts/fan.py).
    "rollouts": Layout(
        "problems with samples",
        (TABLE,),
        "id",
        one_each=True,
        remade="its ledger of samples is one with its shards",
        shown="texts",
        statistics=TextStatistics,
        children="samples",
    ),
    "tokenizer": Layout("a tokenizer", (TOKENIZER,)),
    "classifier": Layout("a classifier", (CLASSIFIER,)),
    "model": Layout("a model", (WEIGHTS, SHAPE, TOKENIZER)),
}
assert set(FORMS) == set(get_args(Form)), "a form without a row"

_BY_RECIPE: Mapping[str, Form] = {
    "instruct": "samples",
    "window": "windows",
    "train": "tokenizer",
    "file": "tokenizer",
    "files": "model",
}
"""A key that only the recipes of one pipeline had in formats 1 and 2, and what that pipeline made."""
_OLD_DOCUMENTS = frozenset({TABLE.kind, KIND})
"""Kinds of the shards of the web pipeline then, and of a list of many of them."""


def form_of(recipe: Mapping[str, Any], kinds: Collection[str]) -> Form:
    """The form of a version that does not name it: of manifest formats 1 and 2. `kinds`: of its shards.

    Raises ValueError for shards that no pipeline of those releases wrote.
    """
    for key, form in _BY_RECIPE.items():
        if key in recipe:
            return form
    if unknown := sorted(set(kinds) - _OLD_DOCUMENTS):
        raise ValueError(f"it does not say its form, and no release wrote shards of kind {', '.join(unknown)}")
    return "documents"
