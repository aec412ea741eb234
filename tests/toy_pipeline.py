"""The smallest pipeline: lines of files, in upper case. Versions may be named as sources; nothing of them is read.

It is a stage, a recipe and a config, and knows nothing of leases, keys, commits or growing: the frame does these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.identity import record_id
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_refs, put_table
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import bundle_receipts
from gristmill.pipelines.frame.recipe import BuildContext, InputRecipe, PipelineConfig, Resolved
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.settings.config import Run
from gristmill.stages.core.shards import MergeLedger, ledger_works
from gristmill.stages.core.work import Outcome, Stage, Work

RUNS: list[str] = []
"""Files that `Upper` has read."""


@dataclass(frozen=True)
class TextFile:
    """Where a file lies."""

    path: str


@dataclass(frozen=True)
class Upper(Stage[TextFile]):
    """Every line is a record, and is kept."""

    name: ClassVar[str] = "upper"
    VERSION: ClassVar[int] = 1
    meanwhile: ClassVar[Callable[[Store], None]] = staticmethod(lambda store: None)

    note: str = ""

    def run(self, store: Store, work: Work[TextFile]) -> Outcome:
        file, (digest, lines) = Path(work.payload.path), work.inputs or ()
        RUNS.append(file.name)
        rows, texts = [], []
        for ordinal, line in enumerate(file.read_text().splitlines()[: int(lines)]):
            id = record_id(url=None, source_key=digest, own=b"%d" % ordinal)
            rows.append({"id": id, "input": digest, "ordinal": ordinal, "fate": "kept", "stage": "upper"})
            texts.append({"id": id, "text": line.upper()})
        table = ledger.sort(pa.Table.from_pylist(rows, ledger.SCHEMA))
        shard = put_table(store, "shard", pa.Table.from_pylist(texts))
        fates = put_table(store, "fates", table)
        Upper.meanwhile(store)
        return Outcome(outputs=(shard, fates), kept=ledger.tally(table), received=ledger.tally(table))


class UpperRecipe(InputRecipe):
    """`alphabet`: must be that of the version that is extended. `sources`: versions, named and not read."""

    form: ClassVar[Form] = "documents"
    reproducible: ClassVar[bool] = True

    dataset: str = "upper"
    sources: tuple[str, ...] = ()
    alphabet: str = "latin"
    upper: Upper = Upper()

    def stages(self, suppression: str = "") -> tuple[StageId, ...]:
        return (*self.scan.identity(), *self.upper.identity(), *MergeLedger().identity())

    def fixed_by(self, base: Manifest) -> Mapping[str, str]:
        return {"alphabet": "letters of two alphabets do not mix"}

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        sources = tuple(exact(versions, name, "recipe.sources").ref for name in self.sources)
        identity, stages = self.identity(suppression), self.stages(suppression)
        return Resolved(identity, stages, self.build, sources=sources, reproducible=self.reproducible)

    def build(self, run: BuildContext) -> Draft:
        """A work a file, then the ledger; on top of `run.base` where a version is extended."""
        works = [
            Work(self.upper, (file.digest, str(file.records)), TextFile(file.uris[0]), file.tally, file.uris[0])
            for file in run.inputs
        ]
        receipts = run.runner.map("upper", works)
        fates = put_refs(run.runner.store, [receipt.output("fates") for receipt in receipts])
        merged = run.runner.map("ledger", ledger_works(fates, sum(receipt.kept.count for receipt in receipts)))
        before = () if run.base is None else (run.base,)
        received = total([*(manifest.received for manifest in before), *(receipt.received for receipt in receipts)])
        return Draft(
            dataset=run.dataset,
            form=run.form,
            run_key=run.key,
            parent=None if run.base is None else run.base.ref,
            sources=run.resolved.sources,
            inputs=tuple(file.as_input() for file in run.inputs),
            recipe=run.resolved.identity,
            stages=run.stages,
            shards=(*(ref for m in before for ref in m.shards), *(r.output("shard") for r in receipts)),
            ledgers=(*(ref for m in before for ref in m.ledgers), *(r.output("ledger") for r in merged)),
            attachments=(bundle_receipts(run.runner.store, [*receipts, *merged]),),
            received=received,
            kept=received,
            dropped=Tally(),
            quarantined=Tally(),
        )


class UpperConfig(PipelineConfig):
    """A run of `upper`."""

    pipeline: str = "upper"
    recipe: UpperRecipe = UpperRecipe()
    run: Run = Run()
