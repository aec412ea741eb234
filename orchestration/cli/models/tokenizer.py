"""`grist tokenizer train | add`: the tokenizer pipeline by its own name. Both are shorthands for a config."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import LakeOption

app = typer.Typer(no_args_is_help=True, help="Train a tokenizer on versions, or take one in: a version like any other.")
NameOption = Annotated[str, typer.Option("--name", help="The dataset that it becomes a version of.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="0: in this process, without Ray.")]


@app.command()
def train(
    versions: Annotated[list[str], typer.Argument(metavar="NAME@vN...", help="Exact versions to train on.")],
    vocab_size: Annotated[int, typer.Option(help="Entries, with the special tokens.")] = 32_768,
    max_bytes: Annotated[int, typer.Option(help="Text to train on; of more, a part is drawn.")] = 1 << 30,
    name: NameOption = "tokenizer",
    lake: LakeOption = None,
    workers: WorkersOption = 0,
) -> None:
    """Train a byte-level BPE with the special tokens of the chat template."""
    sizes = {"vocab_size": vocab_size, "max_bytes": max_bytes}
    _run({"dataset": name, "sources": versions, "train": sizes}, lake, workers)


@app.command()
def add(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A tokenizer.json, local or s3://.")],
    name: NameOption = "tokenizer",
    lake: LakeOption = None,
) -> None:
    """Take in a tokenizer.json as it is."""
    _run({"dataset": name, "file": file}, lake, 0)


def _run(recipe: dict[str, object], lake: str | None, workers: int) -> None:
    from gristmill.orchestration.run import run as run_pipeline
    from gristmill.pipelines.command import Request, set_up_logging

    set_up_logging()
    config = {"pipeline": "tokenizer", "recipe": recipe, "run": {"workers": workers}}
    raise typer.Exit(run_pipeline(Request(config, (), lake)))
