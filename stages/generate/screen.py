"""What a stage that drops problems leaves behind: verdicts on all of a chunk, the fates of those that go, the count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.records import KEYS, Passed, put_verdicts
from gristmill.stages.core.work import Outcome, Work


def screened(store: Store, work: Work[Any], rows: pa.Table, reason: str, dropped: Mapping[int, str | None]) -> Outcome:
    """Outputs `screened` and fates. `rows`: the problems, with their keys and `text`; `dropped`: the row of each that
    goes, for `reason`, and the value that the ledger has with it. Facts: Passed."""
    reasons = pa.array([reason if row in dropped else None for row in range(rows.num_rows)], pa.string())
    verdicts = rows.select(list(KEYS)).append_column("reason", reasons)
    fates = Fates()
    for row, record in enumerate(verdicts.to_pylist()):
        if row in dropped:
            fates.add(record, "dropped", reason, dropped[row])
    written, counts = fates.write(store)
    kept = rows.filter(pc.is_null(reasons))
    return Outcome(
        outputs=(put_verdicts(store, verdicts), written),
        received=ledger.tally(rows) if work.received is None else None,
        passed=ledger.tally(kept),
        dropped=counts.dropped,
        reasons=counts.reasons,
        facts=Passed(pc.sum(pc.binary_length(kept["text"])).as_py() or 0),
    )
