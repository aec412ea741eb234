"""The files that `recipe.inputs` names, for the frame: listed, scanned once in the life of a lake, known by content.

What is wrong with them is said in terms of the recipe: a file that cannot be read is a mistake in the configuration, a
file without a record stops the run unless the recipe allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gristmill.lake.inputs.notes import known
from gristmill.lake.inputs.sources import input_info
from gristmill.lake.store.base import Store
from gristmill.lake.store.outage import is_outage
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.recipe import InputRecipe
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.containers import UnsupportedContainer
from gristmill.stages.read.inputs import EmptyInputs, Listing, ScannedInput, find_inputs, list_inputs, scan_inputs
from gristmill.stages.run.runner import Runner


def input_files(patterns: Sequence[str]) -> Listing:
    """The files that `recipe.inputs` names, and what of it cannot be looked at. Raises BadConfig."""
    if not patterns:
        raise BadConfig("recipe.inputs is empty: give paths or patterns, e.g. --set recipe.inputs='[crawl/*.warc.gz]'")
    try:
        return list_inputs(patterns)
    except ValueError as error:
        raise BadConfig(f"recipe.inputs: {error}") from error


def scanned_inputs(runner: Runner, recipe: InputRecipe, files: Listing) -> tuple[ScannedInput, ...]:
    """The inputs by content, sorted by digest; with a limit only as many as hold so many records.

    Raises BadConfig for files that cannot be read, GateFailed for those without a record, Incomplete, PlanOnly.
    """
    try:
        return tuple(scan_inputs(runner, recipe.scan, files, recipe.limit, allow_empty=recipe.allow_empty))
    except UnsupportedContainer as error:
        raise BadConfig(_with_advice(error, "Mend it, or leave it out of recipe.inputs")) from error
    except EmptyInputs as error:
        advice = (
            "Fetch it again, leave it out of recipe.inputs, or set recipe.allow_empty=true if files without a record"
            " are as they should be; nothing was committed."
        )
        raise GateFailed(_with_advice(error, advice)) from error


def _with_advice(error: Exception, advice: str) -> str:
    """What is wrong with `recipe.inputs`, which may be a list of lines, and what to do."""
    return f"recipe.inputs: {error}" + ("\n" if "\n" in str(error) else ". ") + advice


def known_digests(patterns: Sequence[str], store: Store) -> list[str] | None:
    """The inputs by content, as their scans found them; None if one was not scanned as it is now. Raises BadConfig."""
    if not patterns:
        raise BadConfig("recipe.inputs is empty: give absolute paths, s3:// objects or patterns of them")
    try:
        uris = find_inputs(patterns)
        with ThreadPoolExecutor(16) as pool:
            notes = list(pool.map(lambda uri: known(store, input_info(uri)), uris))
    except (OSError, ValueError) as error:
        if is_outage(error):
            raise
        raise BadConfig(f"recipe.inputs: {error}") from error
    digests = []
    for note in notes:
        if note is None:
            return None
        digests.append(note[0])
    return digests
