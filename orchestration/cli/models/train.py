"""`grist train`: a recipe of training stages, run to its end. The same function as `grist run`, by the field's word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import LakeOption


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file of a `train` pipeline, or the name of one: train-nano.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Laid over the file. Repeatable.")
    ] = None,
    lake: LakeOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be trained, and train nothing.")] = False,
) -> None:
    """Train the stages of a recipe, from the first that is not done. The last line of stdout is the result as JSON."""
    from gristmill.orchestration.run import run as run_pipeline
    from gristmill.pipelines.command import Request, set_up_logging

    set_up_logging()
    raise typer.Exit(run_pipeline(Request(config, tuple(settings or ()), lake, plan)))
