"""Texts that take stretches of each other, their repeated runs by a plain reference, and runs of the pipeline over
them, for tests of repeated substrings."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import web

from gristmill import lake
from gristmill.lake.store.objects import read_refs, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest

N = 5
OPEN = {"language": {"keep": [], "min_score": None}, "gopher_quality": None, "minhash": None}


def reference(texts: Sequence[str], n: int) -> list[list[tuple[int, int]]]:
    """Of each text the ranges of words that stand in n words in a row of an earlier one."""
    known: set[tuple[str, ...]] = set()
    answer = []
    for text in texts:
        words = text.split()
        runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        covered = {i + k for i, run in enumerate(runs) if run in known for k in range(n)}
        known |= set(runs)
        starts = sorted(i for i in covered if i - 1 not in covered)
        answer.append([(i, next(end for end in range(i, len(words) + 1) if end not in covered)) for i in starts])
    return answer


def texts_of(rng: random.Random, rows: int) -> list[str]:
    """Texts of few words, many of which take stretches of others."""
    texts: list[list[str]] = []
    for _ in range(rows):
        words = [f"w{rng.randrange(400)}" for _ in range(rng.randrange(0, 30))]
        for _ in range(rng.randrange(3) if texts else 0):
            other = rng.choice(texts)
            at, here = rng.randrange(len(other) + 1), rng.randrange(len(words) + 1)
            words[here:here] = other[at : at + rng.randrange(20)]
        texts.append(words or ["empty", f"w{rng.randrange(400)}"])
    return list(dict.fromkeys(" ".join(words) for words in texts))


def write(path: Path, texts: Sequence[str]) -> Path:
    """A file of these texts, a row each."""
    rows = [{"text": text, "url": f"https://e.org/{path.stem}/{n}"} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(folder: Path, inputs: list[Path | str], **recipe: Any) -> Manifest:
    """A version of them, of runs of N words in chunks of 7 records."""
    asked = {"substrings": {"min_tokens": N}, "scan": {"chunk_records": 7}, **OPEN, **recipe}
    return web.run(folder, inputs, extract={"seconds_per_record": None}, **asked).manifest


def measured(folder: Path, m: Manifest) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """(input, ordinal) -> ranges."""
    store = open_store(str(folder))
    lists = [read_refs(store, ref) for ref in m.attachments if ref.kind == "refs"]
    tables = [read_table(store, ref) for refs in lists for ref in refs if ref.kind == "ranges"]
    rows = [row for table in tables for row in table.to_pylist()]
    return {(r["input"], r["ordinal"]): [(p["start"], p["end"]) for p in r["ranges"]] for r in rows}


def fates(folder: Path) -> dict[int, tuple[str | None, str | None]]:
    """Ordinal -> reason and value in the ledger."""
    ledger = lake.open("web", lake=str(folder)).ledger().to_pylist()
    return {row["ordinal"]: (row["reason"], row["value"]) for row in ledger}
