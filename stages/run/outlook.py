"""What `--plan` tells of a run besides the works that are left: as far as its pipeline knows it before the run."""

from __future__ import annotations

from typing import Any, NamedTuple


class Outlook(NamedTuple):
    """What is known of a run before it begins: for people, and the same as JSON values."""

    lines: tuple[str, ...]
    values: list[dict[str, Any]]
