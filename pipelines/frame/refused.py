"""The quarantine gate: a run with too many unreadable records commits nothing, and says which records and why.

Of each kind of error the message shows the first record: file, ordinal, bytes. All of them are left in the lake as one
object of JSON lines, which no version holds, so that it can be asked until the next `grist gc`. It holds what the
ledger would: errors and places, and nothing of a text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from gristmill.lake.accounts.balance import total
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, read_table, scratch
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.stages.read.inputs import ScannedInput

EXAMPLES = 5
BATCH_ROWS = 4096
_DIGITS = re.compile(r"\d+")


def check_quarantine(store: Store, receipts: Sequence[Receipt], inputs: Sequence[ScannedInput], limit: float) -> None:
    """Raises GateFailed when more than `limit` of all records are quarantined. `receipts`: those of the reading."""
    received, bad = total(file.tally for file in inputs).count, total(r.quarantined for r in receipts).count
    if not received or bad / received <= limit:
        return
    worst: Counter[str] = Counter()
    for receipt in receipts:
        worst.update(receipt.errors)
    mostly = ", ".join(f"{reason} ({n:,})" for reason, n in worst.most_common(3))
    report, examples = _report(store, _quarantined(store, receipts, {file.digest: file.uris[0] for file in inputs}))
    shown = "\n".join(f"  {example}" for example in examples)
    raise GateFailed(
        f"{bad:,} of {received:,} records are quarantined ({bad / received:.1%}), more than"
        f" recipe.max_quarantine_rate={limit:.1%}; mostly {mostly}. The first of each kind:\n{shown}\n"
        f"All are listed, one JSON object a line, in {store.uri}/{report.key} (until the next `grist gc`)."
        " Look at the inputs, or raise the limit; nothing was committed."
    )


def _quarantined(store: Store, receipts: Sequence[Receipt], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Every quarantined record, in the order of the inputs."""
    columns = ["input", "ordinal", "start", "length", "reason", "value"]
    for receipt in receipts:
        if not receipt.quarantined.count:
            continue
        rows = read_table(store, receipt.output("fates"), filters=pc.field("fate") == "quarantined").select(columns)
        rows = rows.sort_by("ordinal")
        for batch in rows.to_batches(BATCH_ROWS):
            for row in batch.to_pylist():
                yield {
                    "file": names.get(row["input"], row["input"]),
                    "ordinal": row["ordinal"],
                    "start": row["start"],
                    "length": row["length"],
                    "reason": row["reason"],
                    "error": row["value"] or "",
                }


def _report(store: Store, rows: Iterator[dict[str, Any]]) -> tuple[ObjectRef, list[str]]:
    """The object that lists the rows, and the first of each kind of error. Kinds differ by more than their numbers."""
    examples: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    with scratch() as folder:
        path = folder / "refused.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                kind = f"{row['reason']} {_DIGITS.sub('#', row['error'])}"
                counts[kind] += 1
                examples.setdefault(kind, row)
        report = put_file(store, "refused", path, counts.total())
    return report, [_shown(examples[kind], n) for kind, n in counts.most_common(EXAMPLES)]


def _shown(row: Mapping[str, Any], n: int) -> str:
    place = f"{row['file']}: record {row['ordinal']}, bytes {row['start']}-{row['start'] + row['length']} decompressed"
    more = f" ({n - 1:,} more like it)" if n > 1 else ""
    return f"{place}: {row['reason']}: {row['error']}{more}"
