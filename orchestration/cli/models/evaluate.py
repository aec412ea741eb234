"""`grist eval`: the evaluate pipeline by its own name, short for a config."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import LakeOption


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL@vN", help="An exact version of a model.")],
    on: Annotated[
        list[str],
        typer.Option("--on", metavar="NAME@vN", help="Samples, images, clips, documents or windows. Repeatable."),
    ],
    name: Annotated[str, typer.Option("--name", help="The dataset that the evaluation becomes a version of.")] = "eval",
    device: Annotated[str, typer.Option("--device", help="As torch names it: cpu, cuda.")] = "cpu",
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Models side by side. 0: one, in this process, without Ray.")
    ] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Any key of conf/evaluate.yaml. Repeatable.")
    ] = None,
    lake: LakeOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would run, and run nothing.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many records of each version; commits to NAME.limit.")
    ] = None,
) -> None:
    """Evaluate a model: perplexity, exact answers, choices, calls of tools, refusals, transcripts, with intervals.

    Which it is follows from the data. `grist show eval` then shows the scores, and `grist diff eval@v1 eval@v2` two
    models item by item. The last line of stdout is its result as JSON.
    """
    from gristmill.orchestration.run import run as run_pipeline
    from gristmill.pipelines.command import Request, set_up_logging

    set_up_logging()
    gpus = 1 if device.startswith("cuda") and workers else 0
    config = {
        "pipeline": "evaluate",
        "recipe": {"dataset": name, "model": model, "data": on},
        "run": {"device": device, "workers": workers, "gpus": gpus},
    }
    raise typer.Exit(run_pipeline(Request(config, tuple(settings or ()), lake, plan, limit)))
