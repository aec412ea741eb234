"""The lake of two versions that tests of the command look at, and the command itself."""

from __future__ import annotations

from pathlib import Path

from lake_builder import Page, commit, pages
from typer.testing import CliRunner, Result

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.orchestration.cli.main import app

SHORT = Page("https://example.org/2", "quality.too_few_words", "12")
BROKEN = Page("https://example.org/5", "read.unreadable", "bad chunk")


def two_versions(folder: Path) -> Store:
    """The lake."""
    store = open_store(str(folder / "lake"))
    commit(store, "web", pages(20, p2=SHORT, p5=BROKEN))
    commit(store, "web", pages(20, p5=BROKEN), recipe={"quality": {"min_words": 10}})
    return store


def grist(*args: str, lake: Store | None = None) -> Result:
    """Runs the command in this process."""
    where = [] if lake is None else ["--lake", lake.uri]
    return CliRunner().invoke(app, [*args, *where])
