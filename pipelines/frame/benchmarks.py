"""The step that keeps images of benchmarks out, and what a version says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.chunk_steps import NOTHING
from gristmill.pipelines.frame.flow import State, Step, attachments_of
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.core.work import Stage
from gristmill.stages.vision.benchmarks import (
    NAME,
    REPORT,
    SAME,
    SIMILAR,
    Decontaminate,
    FindBenchmarks,
    LookAtBenchmark,
    find_works,
    look_works,
    report,
)

REPORTED = "contamination"
"""The attachments that say which images of benchmarks were there."""
ROLE = "held_out"
"""In which a benchmark stands among the sources: nothing of it goes into the version."""


@dataclass(frozen=True)
class Decontamination(Step):
    """Drops records with an image of a benchmark, and reports which."""

    decontaminate: Decontaminate

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = NOTHING
    deciders: ClassVar[tuple[str, ...]] = (NAME,)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return LookAtBenchmark(), FindBenchmarks(self.decontaminate)

    def run(self, run: BuildContext, state: State) -> State:
        """Raises DamagedObject where a benchmark is."""
        store = run.runner.store
        benchmarks = benchmarks_of(Versions(store), self.decontaminate)
        looked = run.runner.map("benchmarks", look_works(benchmarks))
        shards = [str(manifest) for manifest in benchmarks for _ in manifest.shards]
        outputs = [receipt.output("benchmark_looks") for receipt in looked]
        compared = list(zip(shards, outputs, strict=True))
        stage = FindBenchmarks(self.decontaminate)
        done = run.runner.map("decontaminate", find_works(stage, store, state.records, compared))
        records = state.records.judged("decontaminate", done, [f"{NAME}.similarity"])
        before = attachments_of(run.base, REPORTED)
        reports = [*before, put_table(store, REPORTED, report(store, compared, done))]
        images = sum(ref.records for ref in outputs)
        return state.after(
            records,
            done,
            attachments=reports,
            measures=[receipt.output("screened") for receipt in done],
            statistics={"decontamination": _counted(store, self.decontaminate, images, reports)},
        )


def _counted(store: Store, asked: Decontaminate, images: int, reports: Sequence[ObjectRef]) -> dict[str, Any]:
    """What the reports of a version and of all that it extends come to."""
    rows = pa.concat_tables([REPORT.empty_table(), *(read_table(store, ref) for ref in reports)])
    records = {how: pc.sum(rows.filter(pc.equal(rows["how"], how))["records"]).as_py() or 0 for how in (SAME, SIMILAR)}
    hit = {(row["version"], row["item"], row["position"]) for row in rows.to_pylist()}
    return {"against": list(asked.against), "images": images, "images_found": len(hit), "records_dropped": records}


def benchmarks_of(versions: Versions, asked: Decontaminate) -> list[Manifest]:
    """The versions that are named. Raises BadConfig for one that cannot be used."""
    benchmarks = [exact(versions, name, "recipe.decontaminate.against") for name in asked.against]
    for name, manifest in zip(asked.against, benchmarks, strict=True):
        if manifest.form != "images":
            raise BadConfig(f"recipe.decontaminate.against: {name} holds {manifest.layout.called}, no images")
        if name != str(manifest):
            raise BadConfig(f"recipe.decontaminate.against: {name} is a tag; give the version, {manifest}")
    return benchmarks
