"""The advantages of the segments of windows: of each sample as its source has it, looked up by who is a member."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.fan import MEMBER
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.mix.windows import shard_files
from gristmill.stages.models.references import ADVANTAGES, ADVANTAGES_SCHEMA


@dataclass(frozen=True)
class AdvantagesInput:
    """The index and the members of a shard of windows; the shards of samples of each version that was mixed."""

    index: ObjectRef
    members: ObjectRef
    sources: tuple[tuple[str, tuple[ObjectRef, ...]], ...]


@dataclass(frozen=True)
class LookUpAdvantages(Stage[AdvantagesInput]):
    """Output `advantages` (ADVANTAGES_SCHEMA), windows in the order of the shard."""

    name: ClassVar[str] = "advantages"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[AdvantagesInput]) -> Outcome:
        """Raises KeyError for a member that its source has not, DamagedObject."""
        payload = work.payload
        advantages: dict[tuple[str, str], float] = {}
        for name, shards in payload.sources:
            for shard in shards:
                rows = read_table(store, shard, ["id", "advantage"])
                ids, values = rows["id"].to_pylist(), rows["advantage"].to_pylist()
                advantages |= {(name, id): value for id, value in zip(ids, values, strict=True)}
        keys = read_table(store, payload.index, ["key"])["key"].to_pylist()
        of_window: dict[str, list[float]] = {key: [] for key in keys}
        members = read_table(store, payload.members, ["pack", "position", "source", MEMBER])
        for row in members.sort_by([("pack", "ascending"), ("position", "ascending")]).to_pylist():
            of_window[row["pack"]].append(advantages[row["source"], row[MEMBER]])
        table = pa.table([pa.array(keys, pa.string()), list(of_window.values())], schema=ADVANTAGES_SCHEMA)
        return Outcome(outputs=(put_table(store, ADVANTAGES, table),))


def advantage_works(versions: Versions, mixture: Manifest) -> Iterator[Work[AdvantagesInput]]:
    """One Work a shard of a mixture of samples with advantages."""
    mixed = [versions.manifest(ref.dataset, ref.version) for ref in mixture.sources if ref.role == "mixed"]
    sources = tuple((str(manifest), manifest.shards) for manifest in mixed)
    digests = [f"{name} {ref.sha256}" for name, shards in sources for ref in shards]
    for number, ((_, index), members) in enumerate(zip(shard_files(mixture), mixture.members, strict=True)):
        yield Work(
            LookUpAdvantages(),
            (index.sha256, members.sha256, *digests),
            AdvantagesInput(index, members, sources),
            received=Tally(),
            label=f"{mixture} shard {number}",
        )
