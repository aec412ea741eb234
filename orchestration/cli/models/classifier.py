"""`grist classifier train | apply | eval`: a model of texts, what it makes of others, and what that is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import JsonOption, LakeOption, answer, versions_of

app = typer.Typer(
    no_args_is_help=True, help="Train a classifier of texts, score texts with it, compare it with labels."
)
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="An exact version (NAME@vN), or a fastText file.")]
TextsArgument = Annotated[
    list[str], typer.Argument(metavar="TEXTS...", help="Exact versions, files (JSON lines, Parquet) or patterns.")
]
FieldOption = Annotated[str, typer.Option("--field", help="Of the files' rows, the one with the text.")]
LabelOption = Annotated[str, typer.Option("--label", help="The model's label whose probability is the score.")]


@app.command()
def train(
    positive: Annotated[
        list[str], typer.Option("--positive", metavar="TEXTS", help="A version or files of wanted texts. Repeatable.")
    ],
    negative: Annotated[
        list[str], typer.Option("--negative", metavar="TEXTS", help="The same of texts that are not. Repeatable.")
    ],
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="TEXTS", help="Never trained on, nor what shares 13 words. Repeatable."),
    ] = None,
    field: FieldOption = "text",
    name: Annotated[str, typer.Option("--name", help="The dataset that it becomes a version of.")] = "classifier",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Any key of conf/classifier.yaml. Repeatable."),
    ] = None,
    lake: LakeOption = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="0: in this process, without Ray.")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would run, and run nothing.")] = False,
) -> None:
    """Train a fastText classifier, the same bytes every time. The last line of stdout is the result as JSON.

    `grist show classifier` then says what it was trained on, and how it ranks documents that were kept apart.
    """
    from gristmill.orchestration.run import run as run_pipeline
    from gristmill.pipelines.command import Request, set_up_logging

    set_up_logging()
    recipe = {"dataset": name, "positives": positive, "negatives": negative, "held_out": held_out or [], "field": field}
    config = {"pipeline": "classifier", "recipe": recipe, "run": {"workers": workers}}
    raise typer.Exit(run_pipeline(Request(config, tuple(settings or ()), lake, plan)))


@app.command()
def apply(
    model: ModelArgument,
    texts: TextsArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Parquet: id, characters, score; else lines of JSON.")
    ] = None,
    field: FieldOption = "text",
    label: LabelOption = "positive",
    lake: LakeOption = None,
) -> None:
    """Score texts: one line of JSON each, with the record's id, its length and its score."""
    import json

    from gristmill.orchestration.show.terminal import note
    from gristmill.stages.classify.apply import scored

    table = scored(versions_of(lake), model, texts, label=label, field=field)
    if out is not None:
        import pyarrow.parquet as pq

        pq.write_table(table, out)
        note(f"{table.num_rows:,} scores in {out}")
        return
    for row in table.to_pylist():
        print(json.dumps(row, ensure_ascii=False))


@app.command("eval")
def evaluate(
    model: ModelArgument,
    positive: Annotated[
        list[str] | None,
        typer.Option("--positive", metavar="TEXTS", help="Versions or files of positives. Repeatable."),
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option("--negative", metavar="TEXTS", help="The same of negatives. Repeatable.")
    ] = None,
    labelled: Annotated[
        list[str] | None,
        typer.Option("--labelled", metavar="FILE", help="JSON lines whose field says which they are. Repeatable."),
    ] = None,
    label_field: Annotated[
        str, typer.Option("--label-field", help="Of labelled rows: 1, true or `positive` of positives.")
    ] = "label",
    field: FieldOption = "text",
    label: LabelOption = "positive",
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a model with labels: area under the ROC curve, over text length, within its quintiles; precision, recall.

    All of it with 95% intervals of documents drawn again with replacement.
    """
    from gristmill.orchestration.show.evaluation import draw_ranking
    from gristmill.stages.classify.apply import Labelled, evaluated

    asked = Labelled(tuple(positive or ()), tuple(negative or ()), tuple(labelled or ()), label_field)
    data = evaluated(versions_of(lake), model, asked, label=label, field=field)
    answer(data, as_json, lambda console: draw_ranking(console, data))
