"""Pages of a host that share paragraphs, and the fates they came to."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import web

from gristmill import lake
from gristmill.lake.versions.manifest import Manifest

ON: dict[str, Any] = {"paragraphs": {}, "minhash": None}
BLURB = "The house by the sea has been with the family for years, and the guests that come to it have their own garden."
NOTICE = "All of this is the work of our writers and it may be read by all who have an interest in the sea."


def line(n: int) -> str:
    """A sentence that no other number has, of words, because digits count as equal."""
    words = ["red", "blue", "green", "grey", "white", "black", "brown", "pink", "gold", "teal"]
    name = " ".join(words[int(digit)] for digit in f"{n:05d}")
    return f"This is the story of the {name} boat and of the people that have to be with it when the wind is up."


def page(host: str, n: int, shared: int, own: int, **fields: Any) -> dict[str, Any]:
    """`shared` lines that all pages of its kind have, `own` ones that no other page has."""
    common = [f"{BLURB} {line(80_000 + i)}" for i in range(shared)]
    lines = [*common, *(line(n * 20 + i) for i in range(own))]
    return {"url": f"https://{host}/{n}", "text": "\n".join(lines), "id": str(n), **fields}


def write(path: Path, pages: list[dict[str, Any]]) -> Path:
    """Pages as JSON lines."""
    path.write_text("".join(json.dumps(page) + "\n" for page in pages))
    return path


def fates(folder: Path, name: str = "web") -> dict[str, tuple[str, str | None]]:
    """id -> (reason or "kept", value)."""
    rows = lake.open(name, lake=str(folder)).ledger().to_pylist()
    return {row["id"]: (row["reason"] or "kept", row["value"]) for row in rows}


def reasons(folder: Path) -> dict[str, int]:
    """Reason or "kept" -> records."""
    return dict(Counter(reason for reason, _ in fates(folder).values()))


TEMPLATES = [page("inn.example", n, shared=4, own=1) for n in range(4)]
UNIQUE = [page("inn.example", n, shared=1, own=6) for n in range(10, 14)]
OTHERS = [page(f"inn{n}.example", n, shared=4, own=1) for n in range(20, 24)]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, Manifest]:
    """(lake, version) of all pages together."""
    folder = tmp_path_factory.mktemp("paragraphs")
    path = write(folder / "pages.jsonl", [*TEMPLATES, *UNIQUE, *OTHERS])
    return folder / "lake", web.run(folder / "lake", [path], **ON).manifest
