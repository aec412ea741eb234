"""`grist report`: one or several versions, or a training that runs, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import JsonOption, LakeOption, answer, open_lake, say


def report(
    refs: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[@vN|@TAG]|RUN...",
            help="A version, or several that belong together; or a training that runs, by its key.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: report-NAME-vN.html, here.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the browser of this machine.")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a page of what came in, what was kept, why the rest went, and what a model learned from it.

    It is one HTML file that needs no network: funnel, reasons, examples with pictures and sounds, curves, scores,
    lineage and time. Several versions are set beside each other on one page.
    """
    from gristmill.orchestration.report.page import default_name, write_report

    store = open_lake(lake)
    path = write_report(store, refs, output or Path(default_name(store, refs))).resolve()
    about = {"report": str(path), "versions": refs, "bytes": path.stat().st_size}
    answer(about, as_json, lambda console: say(str(path)))
    if open_page:
        typer.launch(path.as_uri())
