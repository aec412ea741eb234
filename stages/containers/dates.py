"""Dates that are numbers: what `timestamp` columns hold, as ISO 8601 in UTC.

Seconds since 1970 are the rule; milli-, micro- and nanoseconds are recognised by their size, as of 1973 on they differ
by a factor of 1,000. A whole number of 4, 8 or 14 digits that reads as a calendar date (2024, 20240506,
20240506070809) is that date: as seconds or milliseconds it would lie in 1970 or in the year 2600.
"""

from __future__ import annotations

from datetime import datetime, timedelta

_CALENDAR = {4: ("%Y", "%Y"), 8: ("%Y%m%d", "%Y-%m-%d"), 14: ("%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%SZ")}
"""Number of digits: how they are read, and how the date is written."""
_YEARS = (1000, 2199)
_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))
"""(below this size, units in a second): 10^11 seconds are the year 5138, 10^11 milliseconds are March 1973."""


def iso_date(number: int | float) -> str | None:
    """The date that `number` means, to the millisecond; None if it means none (too large, infinite, 20241399)."""
    if isinstance(number, int) and 1000 <= number < 10**14:
        digits = str(number)
        if len(digits) in _CALENDAR and _YEARS[0] <= int(digits[:4]) <= _YEARS[1]:
            return _calendar(digits)
    for below, unit in _UNITS:
        if abs(number) < below:
            return _since_1970(number, unit)
    return None


def _calendar(digits: str) -> str | None:
    form, shown = _CALENDAR[len(digits)]
    try:
        return datetime.strptime(digits, form).strftime(shown)
    except ValueError:
        return None


def _since_1970(number: int | float, unit: int) -> str | None:
    milliseconds = number * 1000 // unit if isinstance(number, int) else round(number * 1000 / unit)
    try:
        at = datetime(1970, 1, 1) + timedelta(milliseconds=milliseconds)
    except OverflowError:  # before the year 1, or behind 9999
        return None
    return at.isoformat(timespec="milliseconds").removesuffix(".000") + "Z"
