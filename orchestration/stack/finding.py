"""What a check of the doctor says."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, WRONG = "ok", "warn", "wrong"


@dataclass(frozen=True)
class Finding:
    """What one check says. level: ok, warn or wrong. found: what is there. fix: what to do, empty where nothing is."""

    check: str
    level: str
    found: str
    fix: str = ""
