"""The contract of a filter, and the two steps that every rule is made of.

A rule is an ordered list of failed tests over stored measures; the first that fails gives the reason. Null
measures fail no test: a null says that the filter does not apply to the document (wrong language) or that the
measure is undefined (mean of no words). `None` as a threshold switches its test off; 0 is a threshold like
any other, unlike in datatrove, where 0 switches off too. What a filter looks at is its batch (documents, images,
clips); the rest does not depend on it. Nothing is registered: the filters of a pipeline are fields of its recipe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Batch(Protocol):
    """Some records as filters look at them: what several filters need of a record is computed here, at most once.

    Rows keep their order and number. `columns` are those that `of` needs of the table with the records' content.
    """

    columns: ClassVar[tuple[str, ...]]

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """A batch of these rows, which have `columns`."""
        ...

    @classmethod
    def empty(cls) -> Self:
        """A batch of no rows: what filters measure of it has the schema of what they measure of any other."""
        ...

    @property
    def sizes(self) -> pa.Array:
        """Bytes of each record's content, integers [rows]: what shards are measured by."""
        ...


B = TypeVar("B", bound=Batch)
_B = TypeVar("_B", bound=Batch, contravariant=True)


class Filter(ABC, Generic[_B]):
    """A frozen dataclass whose fields are thresholds: `class GopherQuality(Filter[Docs])`.

    `evidence` maps each reason's suffix to the column of `measure` that holds the offending value. Raise
    `VERSION` whenever the same content and thresholds can give another measure or another reason. `failures`: reasons
    that say that the filter could not judge the document, which is then quarantined and not dropped. `measured_with`:
    fields that `measure` looks at; `rule` alone looks at the others, which stored measures are replayed with.
    `releases`: distributions of others by whose release a measure is what it is; the identity of a screen names them.
    """

    name: ClassVar[str]
    VERSION: ClassVar[int]
    evidence: ClassVar[Mapping[str, str]]
    failures: ClassVar[frozenset[str]] = frozenset()
    measured_with: ClassVar[frozenset[str]] = frozenset()
    releases: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def measure(self, batch: _B, /) -> pa.RecordBatch:
        """One row a record: everything that `rule` needs."""

    @abstractmethod
    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """One entry a row: null = keep, else `<name>.<reason>`."""

    def judge(self, batch: _B, /) -> pa.StringArray:
        """`rule(measure(batch))`: one entry a row, null = keep, else `<name>.<reason>`."""
        return self.rule(self.measure(batch))

    def unmeasured(self, other: Self) -> tuple[str, ...]:
        """Fields in which `other` differs so that what these settings measured does not say what it would decide, in
        order of their names. Where there is none, `other.rule(self.measure(batch))` is `other.judge(batch)`."""
        return tuple(sorted(name for name in self.measured_with if getattr(self, name) != getattr(other, name)))

    def with_objects(self, read: Callable[[str], bytes]) -> Self:
        """The filter, ready to measure, with what it needs of a lake, such as a model. `read`: sha256 in hex -> bytes
        of that object. Most need nothing."""
        return self

    def config(self) -> dict[str, Any]:
        """What decides beside name and VERSION, for the filter's identity: its fields, unless it says otherwise."""
        return asdict(self)  # type: ignore[call-overload]  # every filter is a dataclass


def below(values: pa.Array, threshold: float | None) -> np.ndarray:
    """Where a value is under the threshold, bool [rows]; never where it is null or the threshold is None."""
    return _where(pc.less(values, _scalar(values, threshold))) if threshold is not None else _nowhere(values)


def above(values: pa.Array, threshold: float | None) -> np.ndarray:
    """Where a value is over the threshold, bool [rows]; never where it is null or the threshold is None."""
    return _where(pc.greater(values, _scalar(values, threshold))) if threshold is not None else _nowhere(values)


def ratio(part: np.ndarray, whole: np.ndarray) -> pa.DoubleArray:
    """`part / whole` in float64, null where `whole` is 0."""
    defined = whole > 0
    return pa.array(np.divide(part, whole, out=np.zeros(len(part)), where=defined), mask=~defined)


def first_reason(name: str, rows: int, tests: Iterable[tuple[str, np.ndarray]]) -> pa.StringArray:
    """`<name>.<reason>` of the first failed test of each row, null where none failed.

    `tests`: (reason, failed bool [rows]) in the order in which they are asked.
    """
    reasons: list[str] = []
    code = np.full(rows, -1, dtype=np.int64)
    for reason, failed in tests:
        code[failed & (code < 0)] = len(reasons)
        reasons.append(f"{name}.{reason}")
    return pa.array(reasons, pa.string()).take(pa.array(code, mask=code < 0))


def _scalar(values: pa.Array, threshold: float) -> pa.Scalar:
    # In the column's own width: float32(0.65) < 0.65 in float64, which would drop a score of exactly 0.65.
    return pa.scalar(threshold, values.type) if pa.types.is_float32(values.type) else pa.scalar(threshold)


def _where(mask: pa.BooleanArray) -> np.ndarray:
    return pc.fill_null(mask, False).to_numpy(zero_copy_only=False)


def _nowhere(values: pa.Array) -> np.ndarray:
    return np.zeros(len(values), dtype=bool)
