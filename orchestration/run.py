"""A pipeline as a command of a shell runs it: as a job does, and Prefect hears of what it made, if the shell knows one.

$PREFECT_API_URL says so, as `grist env` prints it. The version is no worse where nobody could be told of it: that is
said, and the exit code stays.
"""

from __future__ import annotations

import logging
import os

from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.announce import SERVER, is_of_lake_or_server, is_preview, pass_on, prefect_server
from gristmill.orchestration.stack.health import Server
from gristmill.pipelines.command import Request, open_lake
from gristmill.pipelines.command import run as run_pipeline
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.gates.held import Gates

log = logging.getLogger("gristmill")


def run(request: Request) -> int:
    """Runs a pipeline, and announces what it came to. -> The exit code."""
    return run_pipeline(request, then=announce_result if os.environ.get(SERVER) else None)


def announce_result(config: PipelineConfig, result: Result) -> None:
    """Announces the versions of a run, and says what became of that."""
    if is_preview(config):
        return
    server = prefect_server()
    for manifest in (*result.before, result.manifest):
        _announce(server, config.run.lake, manifest)


def _announce(server: Server, lake: str, manifest: Manifest) -> None:
    """Announces a version that the default gates let pass, and says so; if it cannot be, that it was not."""
    try:
        versions = Versions(open_lake(lake))
        reasons = pass_on(server, versions, manifest, versions.store.uri, Gates(), ())
    except Exception as error:
        if not is_of_lake_or_server(error):
            raise
        log.warning(
            "%s is there, but Prefect was not told, so that nothing starts of it: %s; the same command, given again,"
            " tells it",
            manifest,
            error,
        )
        return
    if reasons:
        log.warning("%s is held back, nothing starts of it (docs/operations.md): %s", manifest, "; ".join(reasons))
    else:
        log.info("%s: Prefect knows of it (%s), and starts what waits for it", manifest, server.url)
