"""What `recipe.inputs` names, for the frame: files, scanned once in the life of a lake and known by content.

NAME@vN among them is a version of this lake: its shards are read as files are, its records stay the records that they
are, by id, and it is a source of what is made, so that lineage and takedowns go on through it. What is wrong with the
inputs is said in terms of the recipe: a file that cannot be read is a mistake in the configuration, a file without a
record stops the run unless the recipe allows it.

What was taken down is left out as they are read: the stage is wrapped (stages/read/suppress.py) where this lake has a
suppression list. What was read before, for the newest version of the dataset or with nothing taken down, is taken over,
and gc is told so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from gristmill.lake.inputs.notes import known
from gristmill.lake.inputs.sources import input_info
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.store.outage import is_outage
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.takedown.suppress_guard import guarded_list
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.growth import ancestors
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.markers import is_exact
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.recipe import InputRecipe
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.containers import UnsupportedContainer
from gristmill.stages.core.work import Work
from gristmill.stages.read.along import ReadAlong
from gristmill.stages.read.inputs import ScannedInput, scan_inputs
from gristmill.stages.read.listing import Listing, find_inputs, list_inputs
from gristmill.stages.read.reading import ReadStage, read_works
from gristmill.stages.read.scan import Alongside
from gristmill.stages.read.scans import EmptyInputs
from gristmill.stages.read.suppress import Listed, keys_before, suppressed_works
from gristmill.stages.run.runner import Runner

log = logging.getLogger("gristmill")

READABLE: tuple[Form, ...] = ("documents", "samples")
"""Forms whose rows can be read as those of a file."""


def versions_read(inputs: Iterable[str], versions: Versions) -> list[Manifest]:
    """The versions among `recipe.inputs`. Raises BadConfig for one that is not given out, or holds something else."""
    named = [exact(versions, ref, "recipe.inputs") for ref in dict.fromkeys(inputs) if is_exact(ref)]
    for manifest in named:
        if manifest.form not in READABLE:
            allowed = " and ".join(READABLE)
            raise BadConfig(
                f"recipe.inputs: {manifest} holds {manifest.layout.called}; of versions, {allowed} are read"
            )
    return named


def input_files(inputs: Sequence[str], versions: Versions | None = None) -> Listing:
    """The files that `recipe.inputs` names, those of versions among them, and what of it cannot be looked at. Without
    `versions` its versions are passed over. Raises BadConfig."""
    if not inputs:
        raise BadConfig(
            "recipe.inputs is empty: give paths or patterns, e.g. --set recipe.inputs='[crawl/*.warc.gz]', or exact"
            " versions of this lake (NAME@vN)"
        )
    try:
        files = list_inputs([pattern for pattern in inputs if not is_exact(pattern)])
    except ValueError as error:
        raise BadConfig(f"recipe.inputs: {error}") from error
    if versions is None:
        return files
    shards = [ref for manifest in versions_read(inputs, versions) for ref in manifest.shards]
    stored = dict.fromkeys(_address(versions.store, ref) for ref in shards)
    return Listing([*stored, *files.uris], files.faults)


def of_versions(inputs: Iterable[ScannedInput], read: Sequence[Manifest], store: Store) -> tuple[ScannedInput, ...]:
    """The inputs, those that are shards of the versions that are `read` as such. Raises BadConfig for a shard that is
    not what its version says."""
    shard_of: dict[str, str] = {}
    digest_at: dict[str, str] = {}
    for manifest in read:
        for number, ref in enumerate(manifest.shards):
            shard_of.setdefault(ref.sha256, f"{manifest} shard {number}")
            digest_at[_address(store, ref)] = ref.sha256
    inputs = tuple(inputs)
    for scanned in inputs:
        for wanted in {digest_at.get(uri, scanned.digest) for uri in scanned.uris} - {scanned.digest}:
            raise BadConfig(
                f"recipe.inputs: {shard_of[wanted]} ({wanted[:12]}) is damaged, it has the sha256"
                f" {scanned.digest[:12]}: restore it from a copy of the lake; `grist verify --deep` names all that is"
            )
    return tuple(replace(scanned, shard_of=shard_of.get(scanned.digest, "")) for scanned in inputs)


def _address(store: Store, ref: ObjectRef) -> str:
    """Where an object of the lake lies, as an input is named."""
    return f"{store.uri}/{ref.key}"


def scanned_inputs(
    runner: Runner, recipe: InputRecipe, files: Listing, along: Callable[[], Alongside | None] | None = None
) -> tuple[ScannedInput, ...]:
    """The inputs by content, sorted by digest; with a limit only as many as hold so many records. `along`: who reads
    records meanwhile (stages/read/scans.py).

    Raises BadConfig for files that cannot be read, GateFailed for those without a record, Incomplete, PlanOnly.
    """
    quarantine = recipe.unreadable_files == "quarantine"
    try:
        scanned = scan_inputs(
            runner,
            recipe.scan,
            files,
            recipe.limit,
            allow_empty=recipe.allow_empty,
            quarantine=quarantine,
            along=along,
        )
        return tuple(scanned)
    except UnsupportedContainer as error:
        advice = "Mend it, or leave it out of recipe.inputs"
        if not quarantine:
            advice += (
                "; with recipe.unreadable_files=quarantine files that are there and cannot be read are quarantined"
            )
        raise BadConfig(_with_advice(error, advice)) from error
    except EmptyInputs as error:
        or_quarantine = "" if quarantine else ", recipe.unreadable_files=quarantine if damaged ones are"
        advice = (
            "Fetch it again, leave it out of recipe.inputs, or set recipe.allow_empty=true if files without a record"
            f" are as they should be{or_quarantine}; nothing was committed."
        )
        raise GateFailed(_with_advice(error, advice)) from error


def _with_advice(error: Exception, advice: str) -> str:
    """What is wrong with `recipe.inputs`, which may be a list of lines, and what to do."""
    return f"recipe.inputs: {error}" + ("\n" if "\n" in str(error) else ". ") + advice


def known_digests(inputs: Sequence[str], store: Store) -> list[str] | None:
    """The inputs by content, as their scans found them; None if one was not scanned as it is now. Raises BadConfig."""
    if not inputs:
        raise BadConfig(
            "recipe.inputs is empty: give absolute paths, s3:// objects, patterns of them, or exact versions"
        )
    read = versions_read(inputs, Versions(store))
    try:
        uris = find_inputs([pattern for pattern in inputs if not is_exact(pattern)])
        with ThreadPoolExecutor(16) as pool:
            notes = list(pool.map(lambda uri: known(store, input_info(uri)), uris))
    except (OSError, ValueError) as error:
        if is_outage(error):
            raise
        raise BadConfig(f"recipe.inputs: {error}") from error
    digests = [ref.sha256 for manifest in read for ref in manifest.shards]
    for note in notes:
        if note is None:
            return None
        digests.append(note[0])
    return list(dict.fromkeys(digests))


def allowed_works(
    runner: Runner, stage: ReadStage, inputs: Iterable[ScannedInput], suppression: Suppression, dataset: str
) -> list[Work[Any]]:
    """The works of a stage that reads over inputs, without what was taken down. What was read for the dataset's newest
    version, with fewer taken down, is not read again."""
    works = read_works(stage, inputs)
    if not suppression:
        return list(works)
    earlier = _lists_before(Versions(runner.store), dataset)
    todo: list[Work[Any]] = list(suppressed_works(runner.store, works, suppression, earlier))
    # What they take over must not go meanwhile.
    runner.announce(f"{stage.name} before", [key for work in todo for key in keys_before(work)])
    return todo


def alongside(store: Store, stage: ReadStage, dataset: str) -> Alongside | None:
    """How a stage reads what is new while it is scanned, without what is taken down by now: if more is until the scan
    ends, it is read again. What the dataset has already is told by its size. None where that cannot be known."""
    versions, suppression = Versions(store), guarded_list(store)
    try:
        latest = versions.latest(dataset)
        newest = [] if latest is None else ancestors(versions, versions.manifest(dataset, latest))
        sizes = frozenset(file.bytes for manifest in newest for file in manifest.inputs)
        earlier = _lists_before(versions, dataset)
    except ValueError as error:  # who needs the damaged manifest stops for it; a run that does not goes on as ever
        log.info("what %s has cannot be known: files are read after they are scanned (%s)", dataset, error)
        return None
    return Alongside(ReadAlong(stage, Listed.put(store, suppression, earlier) if suppression else None), sizes)


def _lists_before(versions: Versions, dataset: str) -> list[str]:
    """Digests of lists under which the dataset's newest version was read."""
    newest = [versions.manifest(dataset, number) for number in versions.numbers(dataset)[-1:]]
    return [digest for manifest in newest if (digest := manifest.recipe.get("suppression"))]
