"""`grist kickoff`: a whole graph of pipelines, from raw inputs to evaluated models, whatever of it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import JsonOption, LakeOption


def kickoff(
    config: Annotated[Path, typer.Argument(help="A YAML file of nodes, or the name of one: everything.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Laid over the file. Repeatable.")
    ] = None,
    lake: LakeOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what is done, and what the rest will take; run nothing.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NODE", help="Only this node. Repeatable.")
    ] = None,
    since: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NODE", help="This node and all that comes after it. Repeatable."),
    ] = None,
    logs: Annotated[
        Path | None, typer.Option("--logs", metavar="DIR", help="Where to write what each node says, NODE.log.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a graph of pipelines: what is done is not done again, branches run side by side, and any kill is continued by
    the same command.

    A node that fails, or that a gate holds back, keeps what needs it from starting, and nothing else. With
    $PREFECT_API_URL each node is a task of a flow run there.
    """
    from gristmill.orchestration.kickoff.command import run
    from gristmill.pipelines.command import set_up_logging
    from gristmill.pipelines.kickoff.prepare import Asked

    set_up_logging()
    asked = Asked(config, tuple(settings or ()), lake, tuple(only or ()), tuple(since or ()))
    raise typer.Exit(run(asked, plan, logs, as_json))
