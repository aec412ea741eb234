"""Dates that are numbers: taken for what they mean, or refused with the name of the field."""

from __future__ import annotations

import pytest
from warc_files import line, read_bytes

from gristmill.stages.containers import ReadConfig, Record, Unreadable
from gristmill.stages.containers.dates import iso_date


@pytest.mark.parametrize(
    ("number", "date"),
    [
        (1714979289, "2024-05-06T07:08:09Z"),
        (1714979289.25, "2024-05-06T07:08:09.250Z"),
        (1714979289000, "2024-05-06T07:08:09Z"),
        (1714979289123, "2024-05-06T07:08:09.123Z"),
        (1.714979289123e12, "2024-05-06T07:08:09.123Z"),
        (1714979289123456, "2024-05-06T07:08:09.123Z"),
        (1714979289123456789, "2024-05-06T07:08:09.123Z"),
        (0, "1970-01-01T00:00:00Z"),
        (-86400, "1969-12-31T00:00:00Z"),
        (2024, "2024"),
        (20240506, "2024-05-06"),
        (20240506070809, "2024-05-06T07:08:09Z"),
        (20241399, None),
        (20240506256161, None),
        (10**20, None),
        (10**400, None),
        (-(10**11) + 1, None),
        (1e300, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_what_a_number_means(number, date) -> None:
    assert iso_date(number) == date


@pytest.mark.parametrize("rows", [False, True])
def test_a_line_may_have_a_number_for_its_date(rows) -> None:
    from io import BytesIO

    from gristmill.stages.containers import read, scan

    data = line(text="a", timestamp=1714979289) + line(text="b", timestamp="2024") + line(text="c")
    spans = scan(BytesIO(data), "jsonl").spans
    items = list(read(lambda at: BytesIO(data[at:]), spans, "jsonl", ReadConfig(date="timestamp"), rows=rows))
    assert [item.date for item in items if isinstance(item, Record)] == ["2024-05-06T07:08:09Z", "2024", None]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "field 'date' is a bool, not a string or a number"),
        ([2024], "field 'date' is a list, not a string or a number"),
        (1e99, "field 'date' is a number that is no date; allowed: seconds (or ms"),
        (float("nan"), "field 'date' is a number that is no date"),
    ],
)
def test_a_wrong_one_is_named(value, words) -> None:
    (item,) = read_bytes(line(text="a", date=value), "jsonl")
    assert isinstance(item, Unreadable) and words in item.error
