"""Rules over what a document's source declares: licence, robots directives, reservation of mining, date of the crawl.

What is declared (`license`, `robots`, `tdm_reservation`, `date`: texts, null where nothing is said) was read with the
document (stages/text/declared.py). Defaults drop what its publisher reserved in a way that machines read: `noai`, and
`TDM-Reservation: 1` (W3C Community Group, TDM Reservation Protocol, 2024; Directive (EU) 2019/790, article 4(3)).
`noindex` speaks to search engines and drops nothing unless it is named. What a host says in robots.txt is a matter for
the crawler, and no record has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from gristmill.filters.base import Filter, first_reason
from gristmill.filters.text.docs import Docs

COLUMNS = ("license", "robots", "tdm_reservation", "date")
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d)?)?)?)?")
_VERSION = re.compile(r"-v?\d+(\.\d+)*(-[a-z]{2,8})?$")
"""At the end of a licence's name: `cc-by-3.0-de` is a `cc-by`."""
_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in COLUMNS])


class DeclaredDocs(Docs):
    """Documents with what their sources declare."""

    columns: ClassVar[tuple[str, ...]] = (*Docs.columns, *COLUMNS)

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """The documents of a table with `columns`."""
        docs = cls(rows["text"], urls=rows["url"])
        docs.declared = rows.select(list(COLUMNS)).cast(_SCHEMA)
        return docs


@dataclass(frozen=True)
class Rights(Filter[Docs]):
    """`licenses`: what has none of these is dropped, `cc-by` standing for all versions of it; None: any, or none.
    `refused_licenses`: what has one of these is dropped. `unlicensed`: whether what declares no licence is kept where
    `licenses` names some. `robots`: directives that drop (`noai`, `noindex`, `ccbot:noindex`). `tdm_reserved`: whether
    what is reserved is kept. `crawled_from`, `crawled_before`: ISO 8601, as far as it goes (`2024-05`); the second is
    excluded, and what has no date is kept."""

    licenses: tuple[str, ...] | None = None
    refused_licenses: tuple[str, ...] = ()
    unlicensed: bool = False
    robots: tuple[str, ...] = ("noai",)
    tdm_reserved: bool = False
    crawled_from: str | None = None
    crawled_before: str | None = None

    name: ClassVar[str] = "rights"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "license": "license",
            "no_license": "license",
            "robots": "robots",
            "tdm_reserved": "tdm_reservation",
            "too_early": "date",
            "too_late": "date",
        }
    )

    def __post_init__(self) -> None:
        for name in ("crawled_from", "crawled_before"):
            value = getattr(self, name)
            if value is not None and not _DATE.fullmatch(value):
                raise ValueError(f"rights.{name}={value!r}: a date as 2024, 2024-05, 2024-05-06 or 2024-05-06T07:08:09")

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """What is declared, as it was read; dates without what follows the second, null where they are none."""
        if docs.declared is None:
            nothing = pa.nulls(len(docs), pa.string())
            return pa.record_batch([nothing] * len(COLUMNS), schema=_SCHEMA)
        dates = pa.array([_date(value) for value in docs.declared["date"].to_pylist()], pa.string())
        columns = [dates if name == "date" else docs.declared[name] for name in COLUMNS]
        return pa.record_batch(columns, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """A licence that is refused or not among those wanted, none at all, a directive, a reservation, a date."""
        licenses = [_listed(value, "; ") for value in measures["license"].to_pylist()]
        robots = [_listed(value, ", ") for value in measures["robots"].to_pylist()]
        dates = measures["date"].to_pylist()
        unwanted = [bool(names) and not self._is_wanted(names) for names in licenses]
        missing = [not names and self.licenses is not None and not self.unlicensed for names in licenses]
        reserved = [value == "1" and not self.tdm_reserved for value in measures["tdm_reservation"].to_pylist()]
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("license", np.array(unwanted, bool)),
                ("no_license", np.array(missing, bool)),
                ("robots", np.array([not set(self.robots).isdisjoint(names) for names in robots], bool)),
                ("tdm_reserved", np.array(reserved, bool)),
                ("too_early", np.array([_is_before(date, self.crawled_from) for date in dates], bool)),
                ("too_late", np.array([_is_not_before(date, self.crawled_before) for date in dates], bool)),
            ],
        )

    def _is_wanted(self, names: Sequence[str]) -> bool:
        if any(_is_of(name, self.refused_licenses) for name in names):
            return False
        return self.licenses is None or any(_is_of(name, self.licenses) for name in names)


def _listed(value: str | None, by: str) -> list[str]:
    return value.split(by) if value else []


def _is_of(name: str, wanted: Sequence[str]) -> bool:
    """Whether a licence is one of these: itself, or a version of one that is named without."""
    return name in wanted or _VERSION.sub("", name) in wanted


def _date(value: str | None) -> str | None:
    match = _DATE.match(value or "")
    return match[0].replace(" ", "T") if match else None


def _is_before(date: str | None, limit: str | None) -> bool:
    # As texts: a date that says less (2024) is its own beginning.
    return date is not None and limit is not None and date < limit


def _is_not_before(date: str | None, limit: str | None) -> bool:
    return date is not None and limit is not None and date >= limit
