"""What a pipeline's draft is put together from, beside the outputs of its stages: funnel, receipts, who made it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gristmill import place
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, scratch
from gristmill.lake.versions.manifest import FunnelRow

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


def funnel(
    received: int, stages: Sequence[str], receipts: Iterable[Receipt], base: Iterable[FunnelRow] = ()
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
    # Counts add up over increments, so the base's rows are taken apart and every row is made anew from the top.
    base = tuple(base)
    for row in base:
        dropped.update(row.dropped)
        quarantined.update(row.quarantined)
    rows = []
    for stage in _in_order(stages, [row.stage for row in base]):
        out = {reason: n for reason, n in sorted(dropped.items()) if _stage_of(reason) == stage}
        bad = {reason: n for reason, n in sorted(quarantined.items()) if _stage_of(reason) == stage}
        passed = received - sum(out.values()) - sum(bad.values())
        rows.append(FunnelRow(stage=stage, received=received, passed=passed, dropped=out, quarantined=bad))
        received = passed
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


def provenance(started: float) -> dict[str, Any]:
    """A manifest's `made`: who committed it, when (UTC), where, with which packages and code; never in its digest.

    started: time.time() at the beginning of the run.
    """
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
    try:
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):  # no git, no repository: an installed package
        return {"commit": None, "dirty": None}


def _git(*arguments: str) -> str:
    """What git says of the checkout that this code runs from. Raises OSError, SubprocessError."""
    command = ["git", "-C", str(place.ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
