"""Why a run stops before its end: some of its work failed, or it was asked only what there is to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Failed(NamedTuple):
    """Works of one title that failed, each with its name, and how many others are done."""

    title: str
    failures: Sequence[tuple[str, Exception]]
    done: int

    def __str__(self) -> str:
        count = len(self.failures)
        shown = "\n".join(f"  {label}: {named(error)}" for label, error in self.failures[:10])
        more = f"\n  and {count - 10} more" if count > 10 else ""
        return f"{self.title}: {count} of {count + self.done} pieces of work failed:\n{shown}{more}"


class Incomplete(Exception):
    """Some work failed, of one title or of several; everything else that does not need it is done and has receipts. The
    same command tries only these again, and what needs them."""

    def __init__(self, *failed: Failed) -> None:
        self.errors = tuple(error for part in failed for _, error in part.failures)
        parts = "\n".join(map(str, failed))
        super().__init__(f"{parts}\nWhat is done is kept: run the same command again to try only these.")


def named(error: Exception) -> str:
    """The kind of an error, and what it says."""
    return f"{type(error).__name__}: {str(error).strip()}"


class Outlook(NamedTuple):
    """What is known of a run before it begins: for people, and the same as JSON values."""

    lines: tuple[str, ...]
    values: list[dict[str, Any]]


class PlanOnly(Exception):
    """`--plan` reached the first stage with work to do. `outlook`: what the pipeline knows of the whole run."""

    def __init__(self, title: str, done: int, todo: Sequence[str]) -> None:
        self.title, self.done, self.todo = title, done, tuple(todo)
        self.outlook: Outlook | None = None
        super().__init__(f"{title}: {done} done, {len(todo)} to run")
