"""The exit codes of every command, in one place: docs, `--help` and code say what stands here (a test compares)."""

from __future__ import annotations

from typing import NamedTuple


class Exit(NamedTuple):
    """What a code means, and what to do about it."""

    code: int
    meaning: str
    remedy: str


DONE, NOT_FOUND, BAD_CONFIG, GATE, CONFLICT, INCOMPLETE, BROKEN_PIPE = 0, 1, 2, 3, 4, 5, 141
DEFECT = NOT_FOUND
"""Python's own code for an exception that nobody caught."""

EXITS = (
    Exit(DONE, "done, or done before", ""),
    Exit(
        NOT_FOUND,
        "what was asked for is not there or cannot be done, or something is wrong (`verify`, `status`, `doctor`);"
        " of a run: a defect of gristmill",
        "the message says why; a traceback is for a report",
    ),
    Exit(
        BAD_CONFIG,
        "bad configuration or arguments, or an input of a kind that cannot be read",
        "the message names the key, what was found and what is allowed",
    ),
    Exit(
        GATE,
        "a gate failed (too much is unreadable, a file holds no record, or this very version was withdrawn)",
        "nothing was committed; the message says why",
    ),
    Exit(
        CONFLICT,
        "something was taken down while it ran, so that it may not be committed",
        "run the same command again",
    ),
    Exit(
        INCOMPLETE,
        "incomplete: some work failed, store, inputs or cluster stayed away, or it was interrupted; the rest is kept",
        "run the same command again",
    ),
    Exit(BROKEN_PIPE, "whoever read the output stopped reading (`grist log web | head`)", ""),
)


def help_text() -> str:
    """For the end of `--help`: a paragraph a code."""
    lines = [f"{code}: {meaning}" + (f". {remedy.capitalize()}" if remedy else "") for code, meaning, remedy in EXITS]
    return "\n\n".join(["Exit codes:", *lines])


def markdown() -> str:
    """The table of docs/datasets.md."""
    escaped = (tuple(str(item).replace("|", r"\|") for item in row) for row in EXITS)
    rows = [f"| {code} | {meaning} | {remedy} |" for code, meaning, remedy in escaped]
    return "\n".join(["| exit code | meaning | what to do |", "|---|---|---|", *rows])
