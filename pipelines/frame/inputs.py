"""What `recipe.inputs` names, for the frame: files, scanned once in the life of a lake and known by content.

NAME@vN among them is a version of this lake: its shards are read as files are, its records stay the records that they
are, by id, and it is a source of what is made, so that lineage and takedowns go on through it. What is wrong with the
inputs is said in terms of the recipe: a file that cannot be read is a mistake in the configuration, a file without a
record stops the run unless the recipe allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from gristmill.lake.inputs.notes import known
from gristmill.lake.inputs.sources import input_info
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.store.outage import is_outage
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.markers import is_exact
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.recipe import InputRecipe
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.containers import UnsupportedContainer
from gristmill.stages.read.inputs import ScannedInput, scan_inputs
from gristmill.stages.read.listing import Listing, find_inputs, list_inputs
from gristmill.stages.read.scan import Alongside
from gristmill.stages.read.scans import EmptyInputs
from gristmill.stages.run.runner import Runner

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
