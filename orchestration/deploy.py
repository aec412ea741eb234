"""A step of `prefect deploy`: parameters that no run could use are refused when they are deployed.

prefect.yaml hands them to `check` (a `build` step) by a YAML alias, so that a copy of that file checks its own. Nothing
is run and no input is opened: what is missing now may arrive before the next run, so that is only a warning. Where
$GRIST_NOTIFY_URL is given, it also sets up who is told of runs that fail.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.errors import MarkupError
from rich.markup import render

from gristmill.lake.inputs.sources import is_local
from gristmill.orchestration.notices import NOTIFY_URL, set_up
from gristmill.orchestration.wanted import Asked
from gristmill.pipelines.frame.inputs import input_files
from gristmill.pipelines.frame.recipe import InputRecipe
from gristmill.pipelines.gates.held import limits_of
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.settings.exits import BAD_CONFIG


def check(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Resolves the config as the flow will. Ends the command with one line on stderr if that fails.

    Returns `clone`, the folder that the flow is to run in: this one. (With it prefect.yaml has a `pull` step of its
    own, and an interactive `prefect deploy` does not offer to fetch the code from elsewhere.)
    """
    try:
        check_parameters(parameters)
    except BadConfig as error:
        print(f"error: not deployed: {'; '.join(str(error).splitlines())}", file=sys.stderr, flush=True)
        raise SystemExit(BAD_CONFIG) from None
    if url := os.environ.get(NOTIFY_URL):
        set_up(url)
    return {"clone": str(Path.cwd())}


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raises BadConfig."""
    settings = parameters.get("settings") or []
    for setting in settings:
        if not isinstance(setting, str):
            raise BadConfig(f"settings: {setting!r} is no text of the form a.b=c: put it in quotes")
        if not can_be_printed(setting):
            raise BadConfig(
                f"settings: {setting!r}: Prefect's commands take [/...] for markup and fail on it: quote what stands in"
                " brackets, such as recipe.inputs=['/data/crawl/*.warc.gz']"
            )
    config = parameters.get("config") or "conf/web.yaml"
    recipe = Asked.of(config, settings, parameters.get("lake") or LAKE_LATER).outline.recipe
    limits_of(parameters.get("gates"))
    if isinstance(recipe, InputRecipe):
        if not recipe.inputs:
            raise BadConfig("recipe.inputs is empty: say in prefect.yaml what to read, absolute or s3://")
        _note_what_is_not_there([pattern for pattern in recipe.inputs if is_local(pattern)])


def _note_what_is_not_there(patterns: list[str]) -> None:
    for fault in input_files(patterns).faults if patterns else ():
        warning = f"note: deployed all the same, but as of now a run would fail: recipe.inputs: {fault}"
        print(warning, file=sys.stderr, flush=True)


LAKE_LATER = "/the/lake/of/the/worker"
"""Stands for $GRIST_LAKE as it was when `grist up` started the worker, which this shell need not know."""


def can_be_printed(text: str) -> bool:
    """False where rich, by which Prefect's commands print, finds `[/...]`: the end of a style that never began."""
    try:
        render(text)
    except MarkupError:
        return False
    return True
