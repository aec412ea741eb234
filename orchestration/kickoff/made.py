"""What becomes of a version that a node of a kickoff made under Prefect: an artifact of its task, and an event.

Both are as good as the server allows: a version is no worse where it was away, and what was not told is said.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import httpx
from prefect.artifacts import create_markdown_artifact
from rich.console import Console

from gristmill.lake.store.base import Store
from gristmill.lake.store.outage import brief
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.recipes import changed_on_the_way
from gristmill.lake.versions.statistics import EvaluationStatistics
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.announce import announce_version, is_announced, is_of_lake_or_server, prefect_server
from gristmill.orchestration.funnel import funnel
from gristmill.orchestration.show.evaluation import draw_evaluation
from gristmill.orchestration.show.runs import training_of_version
from gristmill.orchestration.stack.health import Unreachable


def publish(store: Store, manifest: Manifest, log: Any) -> None:
    """The funnel of a version, or the curve of a training, as an artifact of the task; where the server is away, or the
    lake that the curve is read from, that it is none."""
    key = f"{manifest.form}-{manifest.dataset}"
    key = "".join(c if c.isalnum() else "-" for c in key)
    try:
        create_markdown_artifact(described(store, manifest), key=key, description=f"What {manifest} came to")
    except Exception as error:
        if not isinstance(error, httpx.HTTPError) and not is_of_lake_or_server(error):
            raise
        log.warning("%s is there, but Prefect does not show what it came to: %s", manifest, brief(error))


def announce(store: Store, manifest: Manifest, log: Any) -> None:
    """Starts what waits for a version that passes (orchestration/announce.py), or says that it does not."""
    server = prefect_server()
    try:
        if not is_announced(server, manifest, store.uri):
            announce_version(server, manifest, store.uri)
    except Unreachable as error:
        again = "the same command, given again, tells it"
        log.warning(
            "%s is there, but Prefect was not told, so that nothing starts of it: %s; %s", manifest, error, again
        )


def described(store: Store, manifest: Manifest) -> str:
    """Markdown: curves of a training, scores of an evaluation, else the funnel."""
    if manifest.form == "model" and (training := training_of_version(store, manifest)) is not None:
        return _drawn(str(manifest), training.draw)
    if manifest.form == "verdicts":
        statistics = EvaluationStatistics.of(manifest.statistics)
        return _drawn(str(manifest), lambda console: draw_evaluation(console, statistics))
    return funnel(manifest, changed_on_the_way(Versions(store), manifest))


def _drawn(title: str, draw: Callable[[Console], None]) -> str:
    """What a terminal shows, as a block of Markdown that fits a page of 1,400 pixels."""
    page = StringIO()
    draw(Console(file=page, width=110, markup=False, emoji=False, highlight=False, force_terminal=False))
    return f"## {title}\n\n```\n{page.getvalue().rstrip()}\n```\n"
