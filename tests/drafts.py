"""The smallest draft that balances: one record an input, all of them kept."""

from __future__ import annotations

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Draft, InputFile

STAGE = StageId(name="toy", version=1, config={})
NONE = Tally()


def draft(dataset: str, key: str, inputs: list[str], shards: tuple[ObjectRef, ...] = (), **more: object) -> Draft:
    """A draft of `dataset` from input digests; `more` overrides any field."""
    tally = Tally.of_records(inputs, [0] * len(inputs))
    fields: dict[str, object] = {
        "dataset": dataset,
        "form": "documents",
        "run_key": key,
        "inputs": tuple(InputFile(digest=d, bytes=1, records=1) for d in inputs),
        "recipe": {},
        "stages": (STAGE,),
        "shards": shards,
        "received": tally,
        "kept": tally,
        "dropped": NONE,
        "quarantined": NONE,
    }
    return Draft(**(fields | more))
