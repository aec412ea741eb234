"""What every pipeline does around its stages: find the run done before, hold a lease, count the funnel, commit.

A pipeline is its stages in order; this is the frame. The result is one JSON object, the last line of stdout.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lake.manifest import Draft, FunnelRow, Manifest, VersionRef
from lake.objects import ObjectRef, put_file, scratch
from lake.receipt import NotDeterministic, Receipt
from lake.store import Store
from lake.suppress import Suppression
from lake.versions import CommitConflict, Versions
from pipelines.config import BadConfig
from stages.containers import UnsupportedContainer
from stages.inputs import EmptyInputs, Listing, ScannedInput, list_inputs, scan_inputs
from stages.runner import Runner
from stages.scan import Scan

log = logging.getLogger("gristmill")

PACKAGES = (
    "gristmill",
    "datatrove",
    "fastwarc",
    "fasttext-numpy2-wheel",
    "jsonschema",
    "numba",
    "numpy",
    "pyarrow",
    "ray",
    "resiliparse",
    "safetensors",
    "spacy",
    "tokenizers",
    "torch",
    "webdataset",
    "zstandard",
)


class GateFailed(Exception):
    """A limit of the recipe was exceeded; nothing was committed."""


@dataclass(frozen=True)
class Result:
    """What a run came to. `new` is False when the version was there already."""

    manifest: Manifest
    new: bool

    def to_json(self) -> dict[str, Any]:
        m = self.manifest
        return {
            "dataset": m.dataset,
            "version": m.version,
            "digest": m.digest,
            "in": m.came_in.count,
            "kept": m.kept.count,
            "dropped": m.dropped.count,
            "quarantined": m.quarantined.count,
            "new": self.new,
        }


class TakenDown(CommitConflict):
    """A takedown came first: another base would not help, the run has to begin again."""


@dataclass(frozen=True)
class Committer:
    """The end of one run: nothing done twice, nothing given out that was taken down meanwhile.

    `suppression` is the digest of what was taken down when the run began, at `started`; it is read before `sources`,
    the versions that it is made from, are looked up.
    """

    runner: Runner
    dataset: str
    suppression: str
    started: float
    sources: tuple[VersionRef, ...] = ()

    @cached_property
    def versions(self) -> Versions:
        return Versions(self.runner.store)

    def once(self, key: str, build: Callable[[], Draft]) -> Result:
        """The version that the run of this key made before, mended if it lost objects; else what `build` drafts."""
        before = find_before(self.versions, self.dataset, key)
        if before is not None and not self.versions.missing((*before.shards, *before.ledgers)):
            return Result(before, new=False)
        draft = build()
        return self.commit(draft) if before is None else made_again(before, draft)

    def commit(self, draft: Draft, expected_parent: int | None = None) -> Result:
        """Commits, unless something was taken down since the run began; what slips through in between is withdrawn."""
        self.runner.about_to("commit", self.dataset)
        self.still_allowed()
        draft = draft.model_copy(update={"made": made(self.started)})
        manifest = self.versions.commit(draft, expected_parent=expected_parent)
        new = manifest.made["commit_id"] == draft.made["commit_id"]
        try:
            self.still_allowed()
        except TakenDown:
            if new:
                why = "records were taken down while it was committed"
                self.versions.withdraw(manifest.dataset, manifest.version, why)
            raise
        return Result(manifest, new)

    def still_allowed(self) -> None:
        """Raises TakenDown if something was asked to be forgotten since the run began, or a source was withdrawn: it
        would come back with it."""
        gone = [str(ref) for ref in self.sources if ref.version in self.versions.withdrawn(ref.dataset)]
        if gone:
            raise TakenDown(
                f"{', '.join(gone)}, from which it was made, was withdrawn while this run was under way. Nothing that"
                " was made from it is given out: name another version, and run again."
            )
        if Suppression.load(self.runner.store).digest != self.suppression:
            raise TakenDown(
                "records were taken down (`grist forget`) while this run was under way, and it may hold them. Nothing"
                " that holds them is given out: run the same command again, it leaves them out."
            )


def input_files(patterns: Sequence[str]) -> Listing:
    """The files that `recipe.inputs` names, and what of it cannot be looked at. Raises BadConfig."""
    if not patterns:
        raise BadConfig("recipe.inputs is empty: give paths or patterns, e.g. --set recipe.inputs='[crawl/*.warc.gz]'")
    try:
        return list_inputs(patterns)
    except ValueError as error:
        raise BadConfig(f"recipe.inputs: {error}") from error


def scanned(runner: Runner, stage: Scan, files: Listing, limit: int | None, allow_empty: bool) -> list[ScannedInput]:
    """The inputs by content. Raises BadConfig for files that cannot be read, GateFailed for those without a record."""
    try:
        return scan_inputs(runner, stage, files, limit, allow_empty=allow_empty)
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


def find_before(versions: Versions, dataset: str, run_key: str) -> Manifest | None:
    """The version that this run made before. Raises GateFailed if it was taken down."""
    before = versions.find_run(dataset, run_key)
    if before is None:
        check_not_taken_down(versions, dataset, run_key)
    return before


def check_not_taken_down(versions: Versions, dataset: str, run_key: str) -> None:
    """Raises GateFailed if this very run made a version that was withdrawn: the same data would come back."""
    if why := versions.taken_down(dataset, run_key):
        raise GateFailed(
            f"this very run made a version before, and {why}. The same inputs and recipe would bring the same data"
            " back: change them; nothing was committed."
        )


def made_again(before: Manifest, draft: Draft) -> Result:
    """The version as it was, after its lost shards or ledgers were made again from the same inputs."""
    if before.digest != draft.content_digest:
        raise NotDeterministic(
            f"{before}: its lost objects cannot be made again, this run gives other content"
            f" ({draft.content_digest[:12]}, not {before.digest[:12]}). Compare the packages and code of"
            f" `grist show {before}` with today's."
        )
    log.info("%s had lost objects; they were made again", before)
    return Result(before, new=False)


def funnel(
    came_in: int, stages: Sequence[str], receipts: Iterable[Receipt], base: Iterable[FunnelRow] = ()
) -> tuple[FunnelRow, ...]:
    """One row a stage, in order, from the reasons in receipts: `gopher_quality.too_few_words` belongs to its prefix.

    `stages` are those that ran, `base` is the funnel of the version that is extended, whose reasons are added; a stage
    that ran only then has its row where it stood. Raises ValueError for a reason of a stage that did not run.
    """
    dropped: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    for receipt in receipts:
        dropped.update(receipt.reasons)
        quarantined.update(receipt.errors)
    unknown = {reason for reason in (*dropped, *quarantined) if _stage_of(reason) not in stages}
    if unknown:
        raise ValueError(f"funnel: reasons {sorted(unknown)} belong to none of the stages {', '.join(stages)}")
    base = tuple(base)
    for row in base:
        dropped.update(row.dropped)
        quarantined.update(row.quarantined)
    rows = []
    for stage in _in_order(stages, [row.stage for row in base]):
        out = {reason: n for reason, n in sorted(dropped.items()) if _stage_of(reason) == stage}
        bad = {reason: n for reason, n in sorted(quarantined.items()) if _stage_of(reason) == stage}
        passed = came_in - sum(out.values()) - sum(bad.values())
        rows.append(FunnelRow(stage=stage, came_in=came_in, passed=passed, dropped=out, quarantined=bad))
        came_in = passed
    return tuple(rows)


def _stage_of(reason: str) -> str:
    return reason.split(".")[0]


def _in_order(stages: Sequence[str], before: Sequence[str]) -> list[str]:
    """`stages`, and of those before what is not among them, each behind the one that it stood behind."""
    order = list(stages)
    for at, name in enumerate(before):
        if name not in order:
            known = [earlier for earlier in before[:at] if earlier in order]
            order.insert(order.index(known[-1]) + 1 if known else 0, name)
    return order


def not_empty(shards: Sequence[ObjectRef]) -> tuple[ObjectRef, ...]:
    """Shards that hold something; an empty version keeps one, so that its readers find the schema."""
    return tuple(ref for ref in shards if ref.records) or tuple(shards[:1])


def bundle_receipts(store: Store, receipts: Sequence[Receipt]) -> ObjectRef:
    """All receipts of a run as one object: provenance that outlives the single files."""
    with scratch() as folder:
        path = folder / "receipts.jsonl"
        lines = [f"{r.model_dump_json()}\n" for r in sorted(receipts, key=lambda r: r.work_key)]
        path.write_text("".join(lines), encoding="utf-8")
        return put_file(store, "receipts", path, len(receipts))


def made(started: float) -> dict[str, Any]:
    """Who made it, when, where, with what: beside the content digest, never in it."""
    return {
        "commit_id": uuid.uuid4().hex,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - started, 1),
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        **code_in_use(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def code_in_use() -> dict[str, Any]:
    """`commit` and `dirty` of this code. A job's working directory has no .git: GRIST_COMMIT speaks for it."""
    if os.environ.get("GRIST_COMMIT"):
        return {"commit": os.environ["GRIST_COMMIT"], "dirty": None}
    here = Path(__file__).parent.parent
    try:
        run = [
            subprocess.run(
                ["git", "-C", str(here), *args], capture_output=True, text=True, check=True, timeout=10
            ).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        ]
    except (OSError, subprocess.SubprocessError):  # no git, no repository: an installed package
        return {"commit": None, "dirty": None}
    return {"commit": run[0].strip(), "dirty": bool(run[1].strip())}


def last_line(result: Result) -> str:
    return json.dumps(result.to_json())
