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
from pathlib import Path
from typing import Any

from lake.manifest import FunnelRow
from lake.objects import ObjectRef, put_file, scratch
from lake.receipt import Receipt
from lake.store import Store

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


IDLE = ("forget", "paragraphs", "minhash")
"""Stages that do nothing in most runs, or are switched off in some."""


class GateFailed(Exception):
    """A limit of the recipe was exceeded; nothing was committed."""


def funnel(
    came_in: int, stages: Sequence[str], receipts: Iterable[Receipt], base: Iterable[FunnelRow] = ()
) -> tuple[FunnelRow, ...]:
    """One row a stage, in order, from the reasons in receipts: `gopher_quality.too_few_words` belongs to its prefix.

    `base` is the funnel of the version that is extended; its reasons are added. Rows of a stage that can stand idle
    (`IDLE`) are left out where it did.
    """
    dropped: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    for receipt in receipts:
        dropped.update(receipt.reasons)
        quarantined.update(receipt.errors)
    for before in base:
        dropped.update(before.dropped)
        quarantined.update(before.quarantined)
    unknown = {reason for reason in (*dropped, *quarantined) if reason.split(".")[0] not in stages}
    if unknown:
        raise ValueError(f"funnel: reasons {sorted(unknown)} belong to none of the stages {', '.join(stages)}")
    rows = []
    for stage in stages:
        ours = {r: n for r, n in sorted(dropped.items()) if r.split(".")[0] == stage}
        bad = {r: n for r, n in sorted(quarantined.items()) if r.split(".")[0] == stage}
        passed = came_in - sum(ours.values()) - sum(bad.values())
        if ours or bad or stage not in IDLE:
            rows.append(FunnelRow(stage=stage, came_in=came_in, passed=passed, dropped=ours, quarantined=bad))
        came_in = passed
    return tuple(rows)


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
