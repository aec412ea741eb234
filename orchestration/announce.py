"""The event of a new version: what is made from it is started by it, by a trigger in prefect.yaml.

Its id follows from lake and version, and the server is asked for it first: a run that finds nothing new announces what
another one, killed between commit and event, did not. Whoever is started twice all the same finds its work done.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from gristmill.lake.versions.manifest import Manifest
from gristmill.orchestration.stack.health import Server

COMMITTED = "gristmill.version.committed"


def announce_version(server: Server, manifest: Manifest, lake: str) -> bool:
    """Tells the server, unless it was told before; whether it was told now. Raises Unreachable."""
    id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"gristmill:{lake}:{manifest}:{manifest.digest}"))
    if server.ask("/events/filter", {"filter": {"id": {"id": [id]}}, "limit": 1})["total"]:
        return False
    resource = {
        "prefect.resource.id": f"gristmill.dataset.{manifest.dataset}",
        "prefect.resource.name": str(manifest),
        "gristmill.version": str(manifest),
        "gristmill.form": manifest.form,
        "gristmill.digest": manifest.digest,
        "gristmill.lake": lake,
    }
    event = {"id": id, "event": COMMITTED, "occurred": datetime.now(UTC).isoformat(), "resource": resource}
    server.ask("/events", [event])
    return True
