"""Commands that look at trainings: `runs` says what runs now, `lr-fit` what the learning rate ought to be."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import JsonOption, LakeOption, answer, open_lake, versions_of


def runs(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """What is trained now, how far it is, and what was broken off; a training that is done is a version."""
    from gristmill.orchestration.show.runs import draw_runs
    from gristmill.stages.train.seen import run_rows

    store = open_lake(lake)
    rows = run_rows(store)
    answer(rows, as_json, lambda console: draw_runs(console, rows, store.uri))


def lr_fit(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="VERSION...",
            help="Trained models, of two sizes in tokens or more with three peak LRs each; or an evaluation of each.",
        ),
    ],
    tokens: Annotated[
        list[int] | None, typer.Option("--tokens", min=1, help="Say the peak LR for so many tokens. Repeatable.")
    ] = None,
    exponent: Annotated[float, typer.Option(help="The slope of the law.")] = -0.32,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit B of the law peak LR = B * tokens^-0.32 to small runs, and print the line for a recipe."""
    from gristmill.model.runs.lr_fit import fit
    from gristmill.orchestration.show.curves import draw_law, law_to_json
    from gristmill.stages.train.trials import trials_of

    trials = trials_of(versions_of(lake), runs)
    law = fit(trials.trials, exponent)
    wanted = tokens or []
    answer(
        law_to_json(law, trials.losses, wanted), as_json, lambda console: draw_law(console, law, trials.losses, wanted)
    )
