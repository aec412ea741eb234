"""What a run came to, and the line in which it says so: of a process or a job, that line is all that comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.lake.versions.manifest import Manifest


@dataclass(frozen=True)
class Result:
    """What a run came to. `new` is False when the version was there already. `before`: of a chain, the versions of its
    earlier links, in order."""

    manifest: Manifest
    new: bool
    before: tuple[Manifest, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        """Of all links, such as web@v3."""
        return tuple(str(manifest) for manifest in (*self.before, self.manifest))

    def to_json(self) -> dict[str, Any]:
        """The version and its counts of records, as the last line of stdout says them."""
        m = self.manifest
        return {
            "dataset": m.dataset,
            "version": m.version,
            "digest": m.digest,
            "in": m.received.count,
            "kept": m.kept.count,
            "dropped": m.dropped.count,
            "quarantined": m.quarantined.count,
            "new": self.new,
            **({"before": [str(manifest) for manifest in self.before]} if self.before else {}),
        }


def last_line(result: Result) -> str:
    """What a run prints at its end: one JSON object."""
    return json.dumps(result.to_json())


def versions_of_line(line: Mapping[str, Any]) -> tuple[str, ...]:
    """`Result.versions` as such a line says them."""
    return (*line.get("before", ()), f"{line['dataset']}@v{line['version']}")
