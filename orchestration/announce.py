"""The event of a new version: what is made from it is started by it, by a trigger in prefect.yaml.

Its id follows from lake and version, and the server is asked for it first: a run that finds nothing new announces what
another one, killed between commit and event, did not. Whoever is started twice all the same finds its work done.
Flows announce what they bring, and so do commands of a shell that knows a server (orchestration/run.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from gristmill.lake.store.base import NotFound
from gristmill.lake.store.outage import is_outage
from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.orchestration.stack.health import Server
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.gates.held import Gates
from gristmill.pipelines.gates.passing import judge, note_passed
from gristmill.pipelines.settings.config import BadConfig

COMMITTED = "gristmill.version.committed"
SERVER, JOB_SERVER = "PREFECT_API_URL", "RAY_API_SERVER_ADDRESS"
"""The variables that say where a Prefect server and Ray's job server are; `grist env` prints them."""


def prefect_server() -> Server:
    """The server that this process speaks to."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL  # a second, which others need not take

    return Server.with_password(str(PREFECT_API_URL.value()), str(PREFECT_API_AUTH_STRING.value() or ""))


def pass_on(
    server: Server, versions: Versions, manifest: Manifest, lake: str, gates: Gates, accepted: Sequence[str]
) -> list[str]:
    """Announces a version, unless it was, or a gate holds it: then why. What passed once is not looked at again.

    Raises Unreachable, and the error of an outage of the lake.
    """
    if is_announced(server, manifest, lake):
        return []
    judged = judge(versions, manifest, gates, accepted)
    if judged.passed is not None:
        note_passed(
            versions, judged.passed, gates, accepted
        )  # first: who finds it announced does not write it any more
    if not judged.reasons:
        announce_version(server, manifest, lake)
    return judged.reasons


def is_preview(config: PipelineConfig) -> bool:
    """Whether a run has a limit: nothing is built on what it makes, so nothing starts of it."""
    return getattr(config.recipe, "limit", None) is not None


def is_of_lake_or_server(error: Exception) -> bool:
    """Whether an error is none of the program, but of a lake that is away, refuses or lost something, or of a server:
    what is committed stays, and the same command, given again, tells it."""
    if isinstance(error, OSError | Unreadable | NotFound | NoSuchVersion | BadConfig):
        return True
    return is_outage(error) or type(error).__module__.startswith("botocore")


def is_announced(server: Server, manifest: Manifest, lake: str) -> bool:
    """Whether the server knows the event of this version. Raises Unreachable."""
    answer = server.ask("/events/filter", {"filter": {"id": {"id": [_id(manifest, lake)]}}, "limit": 1})
    return bool(answer["total"])


def announce_version(server: Server, manifest: Manifest, lake: str) -> None:
    """Tells the server. Raises Unreachable."""
    resource = {
        "prefect.resource.id": f"gristmill.dataset.{manifest.dataset}",
        "prefect.resource.name": str(manifest),
        "gristmill.version": str(manifest),
        "gristmill.form": manifest.form,
        "gristmill.digest": manifest.digest,
        "gristmill.lake": lake,
    }
    now = datetime.now(UTC).isoformat()
    server.ask("/events", [{"id": _id(manifest, lake), "event": COMMITTED, "occurred": now, "resource": resource}])


def _id(manifest: Manifest, lake: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"gristmill:{lake}:{manifest}:{manifest.digest}"))
