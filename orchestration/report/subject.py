"""What a report reads of a version: its manifest, and beside it a bounded number of examples, values and receipts.

Everything that is counted stands in the manifest; what is read besides is bounded by the constants here, so that a page
of ten million records costs what one of ten thousand does. Of a version that was withdrawn nothing is read: its data is
no longer given out. Draws are decided by the version's digest, so that the same version makes the same page.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from gristmill.lake.query.examples import examples, reasons_of
from gristmill.lake.query.query import Description, Node, describe, lineage
from gristmill.lake.query.sampling import Drawn, SampledRecord, sample
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import open_parquet, read_object
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.statistics import TextStatistics
from gristmill.lake.versions.versions import Versions
from gristmill.model.runs.curve import Curve
from gristmill.orchestration.show.runs import training_of_version

if TYPE_CHECKING:  # only mixtures need it, and it takes time to import
    from gristmill.stages.mix.windows import DrawnStretches, StretchMedia

KEPT = 6
"""Records that are shown of what was kept."""
REASONS, EACH = 12, 2
"""Reasons that have examples, the most frequent ones, and how many each."""
STRETCHES = 2
"""Of each source of a mixture."""
SCORED_ROWS = 100_000
"""Of which the values of a column of scores are read, at least, if there are so many."""
SCORED_COLUMNS = 4


@dataclass(frozen=True)
class Scores:
    """Values of a column of fractions, of `rows` records that were drawn by row groups out of `of`."""

    column: str
    values: list[float]
    rows: int
    of: int


@dataclass(frozen=True)
class StageTime:
    """Works of a stage by their receipts: `seconds` and GPU-seconds that workers spent, and records that came in.
    `gpu_seconds` is None where receipts do not say what was reserved."""

    stage: str
    works: int
    seconds: float
    gpu_seconds: float | None
    records: int


@dataclass(frozen=True)
class Windows:
    """Records as a mixture's windows hold them, each with its media."""

    drawn: DrawnStretches
    media: tuple[StretchMedia, ...]


@dataclass(frozen=True)
class Work:
    """A piece of work by its receipt."""

    key: str
    stage: str
    seconds: float
    gpus: float | None
    records: int


@dataclass(frozen=True)
class Subject:
    """A version of a report. `refused`: reason -> records. `curve`: of a model that was trained here. `rounds`: the
    versions of rollouts that it comes from, the earliest first, and itself."""

    about: Description
    origins: Node
    curve: Curve | None = None
    kept: Drawn | None = None
    refused: dict[str, tuple[SampledRecord, ...]] = field(default_factory=dict)
    windows: Windows | None = None
    scores: tuple[Scores, ...] = ()
    works: tuple[Work, ...] = ()
    rounds: tuple[Manifest, ...] = ()

    @property
    def manifest(self) -> Manifest:
        """Of the version."""
        return self.about.manifest

    @property
    def ref(self) -> str:
        """`web@v3`."""
        return str(self.manifest)


def read_subject(versions: Versions, ref: str) -> Subject:
    """Everything that a page shows of a version. Raises NoSuchVersion, DamagedObject."""
    about = describe(versions, ref)
    m, store = about.manifest, versions.store
    origins = lineage(versions, str(m))
    if about.withdrawn is not None:
        return Subject(about, origins)
    training = training_of_version(store, m) if m.form == "model" else None
    return Subject(
        about,
        origins,
        curve=None if training is None else training.curve,
        kept=_kept(versions, m),
        refused=examples(versions, m, list(reasons_of(m))[:REASONS], EACH),
        windows=_windows(versions, m) if m.layout.shown == "stretches" else None,
        scores=tuple(_scores(store, m)),
        works=tuple(_works(store, m)),
        rounds=tuple(_rounds(versions, origins)),
    )


def times(works: Sequence[Work]) -> list[StageTime]:
    """Work by stage, the longest first; what two versions share counts once."""
    by_stage: dict[str, list[Work]] = {}
    for work in {work.key: work for work in works}.values():
        by_stage.setdefault(work.stage, []).append(work)
    rows = []
    for stage, of_stage in by_stage.items():
        known = [work for work in of_stage if work.gpus is not None]
        gpu_seconds = sum(work.seconds * (work.gpus or 0) for work in known) if known else None
        seconds, records = sum(work.seconds for work in of_stage), sum(work.records for work in of_stage)
        rows.append(StageTime(stage, len(of_stage), seconds, gpu_seconds, records))
    return sorted(rows, key=lambda row: (-row.seconds, row.stage))


def _rounds(versions: Versions, node: Node) -> Iterator[Manifest]:
    """Versions of rollouts in a lineage, origins before what was made of them. They are few, and told from others by
    their manifests, each of which is read once."""
    refs = dict.fromkeys(each.ref for each in reversed(nodes(node)) if each.problem is None)
    for ref in refs:
        manifest = versions.resolve(ref)
        if manifest.form == "rollouts":
            yield manifest


def nodes(node: Node) -> list[Node]:
    """A lineage as a list, in which a version stands before its origins; however deep it is."""
    listed, left = list[Node](), [node]
    while left:
        listed.append(left.pop())
        left += reversed(listed[-1].origins)
    return listed


def _tables(m: Manifest) -> bool:
    return bool(m.shards) and all(m.layout.holds(ref.kind) == "rows" for ref in m.shards)


def _kept(versions: Versions, m: Manifest) -> Drawn | None:
    """Kept records with the bytes of their media."""
    return sample(versions, m, KEPT, data=True) if m.layout.shown == "texts" and m.shards else None


def _windows(versions: Versions, m: Manifest) -> Windows:
    from gristmill.pipelines.tokenizer import tokenizer_of
    from gristmill.stages.mix.windows import media_of, sample_stretches

    drawn = sample_stretches(versions.store, m, tokenizer_of(versions, m), STRETCHES)
    return Windows(drawn, tuple(media_of(versions.store, m, drawn.stretches)))


def _scores(store: Store, m: Manifest) -> Iterator[Scores]:
    """Columns of fractions, of whole row groups in an order that the version's digest decides."""
    if m.layout.statistics is not TextStatistics or not _tables(m):
        return
    rng = random.Random(f"scores:{m.digest}")
    values: dict[str, list[float]] = {}
    rows = 0
    shards = [ref for ref in m.shards if ref.records]
    for ref in rng.sample(shards, len(shards)):
        with open_parquet(store, ref) as file:
            schema = file.schema_arrow
            columns = [item.name for item in schema if pa.types.is_floating(item.type)][:SCORED_COLUMNS]
            if not columns:
                return
            for group in rng.sample(range(file.num_row_groups), file.num_row_groups):
                table = file.read_row_group(group, columns)
                rows += table.num_rows
                for name in columns:
                    values.setdefault(name, []).extend(table[name].drop_null().to_pylist())
                if rows >= SCORED_ROWS:
                    break
        if rows >= SCORED_ROWS:
            break
    yield from (Scores(name, column, rows, m.kept.count) for name, column in values.items() if column)


def _works(store: Store, m: Manifest) -> Iterator[Work]:
    """What a version's receipts say; a takedown or a growth brings those of earlier versions along."""
    for ref in m.attachments:
        if ref.kind == "receipts":
            for line in read_object(store, ref).splitlines():
                receipt = json.loads(line)
                info, stages = receipt["info"], receipt["stages"]
                yield Work(
                    key=receipt["work_key"],
                    stage=" + ".join(stage["name"] for stage in stages) or "work",
                    seconds=float(info.get("seconds", 0.0)),
                    gpus=info.get("gpus"),
                    records=int(receipt["came_in"][0]),
                )
