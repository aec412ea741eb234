"""Rules over what a document's source declares."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from gristmill.filters.rights import COLUMNS, DeclaredDocs, Rights
from gristmill.filters.text.docs import Docs


def verdict(rights: Rights, **declared: str | None) -> str | None:
    """Of one document."""
    columns = {name: pa.array([declared.get(name)], pa.string()) for name in ("text", "url", *COLUMNS)}
    columns["text"] = pa.array(["text"])
    reason: str | None = rights.judge(DeclaredDocs.of(pa.record_batch(columns)))[0].as_py()
    return reason and reason.removeprefix("rights.")


@pytest.mark.parametrize(
    ("settings", "declared", "expected"),
    [
        # What is reserved so that machines read it; by default nothing else.
        ({}, {}, None),
        ({}, {"robots": "index, noai"}, "robots"),
        ({}, {"robots": "noindex, ccbot:noai, noimageai"}, None),
        ({"robots": ("noindex",)}, {"robots": "nofollow, noindex"}, "robots"),
        ({"robots": ("ccbot:noindex",)}, {"robots": "ccbot:noindex"}, "robots"),
        ({"robots": ()}, {"robots": "noai"}, None),
        ({}, {"tdm_reservation": "1"}, "tdm_reserved"),
        ({}, {"tdm_reservation": "0"}, None),
        ({"tdm_reserved": True}, {"tdm_reservation": "1"}, None),
        # A licence stands for its versions, and not for others whose names it begins.
        ({"licenses": ("cc-by", "cc0")}, {"license": "cc-by-4.0"}, None),
        ({"licenses": ("cc-by", "cc0")}, {"license": "cc-by-3.0-de"}, None),
        ({"licenses": ("cc-by", "cc0")}, {"license": "cc0-1.0"}, None),
        ({"licenses": ("cc-by", "cc0")}, {"license": "cc-by-nc-4.0"}, "license"),
        ({"licenses": ("cc-by-4.0",)}, {"license": "cc-by-3.0"}, "license"),
        ({"licenses": ("cc-by",)}, {"license": "https://a.example/terms; cc-by-4.0"}, None),
        ({"licenses": ("cc-by",)}, {}, "no_license"),
        ({"licenses": ("cc-by",), "unlicensed": True}, {}, None),
        ({"licenses": ("cc-by",), "unlicensed": True}, {"license": "cc-by-sa-4.0"}, "license"),
        ({"refused_licenses": ("cc-by-nc", "cc-by-nd")}, {"license": "cc-by-nc-2.0"}, "license"),
        ({"refused_licenses": ("cc-by-nc",)}, {"license": "cc-by-4.0; cc-by-nc-2.0"}, "license"),
        ({"refused_licenses": ("cc-by-nc",)}, {"license": "cc-by-4.0"}, None),
        # Dates as far as they go.
        ({"crawled_from": "2024-05"}, {"date": "2024-04-30T23:59:59Z"}, "too_early"),
        ({"crawled_from": "2024-05"}, {"date": "2024-05-01"}, None),
        ({"crawled_before": "2024-05"}, {"date": "2024-05-01T00:00:00Z"}, "too_late"),
        ({"crawled_before": "2024-05-06T07:08:10"}, {"date": "2024-05-06 07:08:09.5+02:00"}, None),
        ({"crawled_from": "2024"}, {"date": "last May"}, None),
        ({"crawled_from": "2024"}, {}, None),
        # The first that fails is the reason.
        ({"licenses": ("mit",)}, {"robots": "noai", "tdm_reservation": "1"}, "no_license"),
        ({}, {"robots": "noai", "tdm_reservation": "1"}, "robots"),
    ],
)
def test_each_rule(settings: dict[str, Any], declared: dict[str, str], expected: str | None) -> None:
    assert verdict(Rights(**settings), **declared) == expected


@pytest.mark.parametrize("value", ["May 2024", "2024-5", "", "20240506"])
def test_a_limit_that_is_no_date_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"rights\.crawled_from=.*2024-05"):
        Rights(crawled_from=value)


def test_where_nobody_looked_nothing_is_declared() -> None:
    assert Rights().judge(Docs(pa.array(["a", "b"]))).null_count == 2
    assert Rights(licenses=("mit",)).judge(Docs(pa.array(["a"]))).to_pylist() == ["rights.no_license"]
