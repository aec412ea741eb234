"""Listing: the files that patterns name, and what of them cannot be looked at, which is named and never passed over."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gristmill.lake.inputs.sources import survey
from gristmill.lake.store.outage import is_outage

log = logging.getLogger("gristmill")

SHOWN = 50
"""Faults that a message names."""


class Listing(NamedTuple):
    """The files that patterns name, in order, once; and a sentence for each thing that could not be listed:
    patterns that match nothing, broken links, unreadable folders."""

    uris: list[str]
    faults: list[str]


def list_inputs(patterns: Iterable[str]) -> Listing:
    """Raises ValueError for another scheme, and for a name that is not UTF-8: the manifest, which names its inputs,
    could not be written."""
    uris: list[str] = []
    faults: list[str] = []
    for pattern in patterns:
        try:
            matched = survey(pattern)
        except OSError as error:
            if is_outage(error):
                raise
            faults.append(str(error))
            continue
        uris += matched.files
        faults += matched.faults
        for again in matched.again:
            log.warning("input %r: %s", pattern, again)
    for uri in uris:
        if not uri.isascii() and any("\ud800" <= char <= "\udfff" for char in uri):
            raise ValueError(f"input {uri!r}: its name is not UTF-8; rename it (the name is no part of any key)")
    return Listing(list(dict.fromkeys(uris)), faults)


def find_inputs(patterns: Iterable[str]) -> list[str]:
    """The files of `list_inputs`. Raises OSError for its faults."""
    uris, faults = list_inputs(patterns)
    if faults:
        raise OSError(all_of(faults))
    return uris


def all_of(faults: Sequence[str], what: str = "cannot be used") -> str:
    """One fault as it is, several under a headline, which says `what` the inputs do."""
    if len(faults) == 1:
        return faults[0]
    shown = "".join(f"\n  {fault}" for fault in faults[:SHOWN])
    more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"{len(faults)} inputs {what}:{shown}{more}"
