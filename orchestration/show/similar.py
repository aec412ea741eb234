"""What `grist similar` answers with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NearDuplicate:
    """A near duplicate and what became of it."""

    id: str
    similarity: float
    words: int
    fate: str | None
    reason: str | None
    survivor: str | None
