"""`grist import hf` and `grist export hf`: models in transformers' format into the lake and out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import LakeOption, open_lake, say

import_app = typer.Typer(no_args_is_help=True, help="Take a model in: a version like any other.")
export_app = typer.Typer(no_args_is_help=True, help="Write a model or a dataset out, for other tools.")


@import_app.command("hf")
def import_hf(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="config.json, safetensors, and vision-lora/, speech-lora/ if any.")
    ],
    name: Annotated[str, typer.Option("--name", help="The dataset that it becomes a version of.")] = "model",
    lake: LakeOption = None,
) -> None:
    """Take in a checkpoint of transformers (phi3, phi4_multimodal) or the hub (phi4mm). Nothing in it is unpickled."""
    from gristmill.orchestration.run import run as run_pipeline
    from gristmill.pipelines.command import Request, set_up_logging

    set_up_logging()
    config = {"pipeline": "model", "recipe": {"dataset": name, "folder": str(folder)}, "run": {"workers": 0}}
    raise typer.Exit(run_pipeline(Request(config, (), lake)))


@export_app.command("hf")
def export_hf(
    model: Annotated[str, typer.Argument(metavar="NAME@vN", help="The version.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or an empty folder.")],
    merged: Annotated[
        str | None,
        typer.Option(
            "--merged", metavar="ADAPTER", help="Add this adapter to the language model's weights: vision or speech."
        ),
    ] = None,
    lake: LakeOption = None,
) -> None:
    """Write a model as transformers and peft load it, with a card that says what it was made from."""
    from gristmill.pipelines.model import export_hf as export

    manifest = export(open_lake(lake), model, folder, merged)
    say(f"{manifest} is in {folder}")
