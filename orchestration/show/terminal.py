"""What every command shares: the lake's address, the two forms of an answer, and how errors are said.

An answer is a dataclass; `answer` prints it as one JSON document or hands it to a drawing function. Errors of
the lake are one line on stderr and an exit code: 1 not found or not possible, 2 asked wrongly. Anything else is a
defect of gristmill and keeps its traceback. Whatever is printed goes through `pipelines.settings.plain`, JSON too:
what others wrote must not act on a terminal.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
import typer.core
from pydantic import BaseModel
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from gristmill.lake.store.base import MARKER, NotFound, Store, UnknownFormat, UnsafeStore
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.pipelines.settings import exits
from gristmill.pipelines.settings.config import lake_uri
from gristmill.pipelines.settings.logs import is_quiet, log
from gristmill.pipelines.settings.plain import json_line
from gristmill.pipelines.settings.plain import plain as plain  # every command takes it from here

NOT_FOUND, USAGE = exits.NOT_FOUND, exits.BAD_CONFIG
PIPE_WIDTH = 120
"""Columns where stdout is no terminal and $COLUMNS does not say."""

LakeOption = Annotated[str | None, typer.Option("--lake", metavar="DIR|S3-URI", help="The lake. Default: $GRIST_LAKE.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else.")]


class Grist(typer.core.TyperGroup):
    """Says the lake's errors in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; an error that a user can do something about becomes a line and an exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `grist log web | head`: the reader has seen enough
            raise typer.Exit(exits.BROKEN_PIPE) from None
        except Exception as error:
            code = exit_code(error)
            if code is None:
                raise
            fail(str(error))
            if log.isEnabledFor(logging.DEBUG):
                print(plain("".join(traceback.format_exception(error))), file=sys.stderr, end="")
            raise typer.Exit(code) from error


def exit_code(error: Exception) -> int | None:
    """The exit code of an error that a user can do something about; None for a defect of gristmill."""
    if type(error).__name__ == "BadConfig" or type(error) is ValueError:
        return USAGE
    if isinstance(error, UnknownFormat | UnsafeStore):
        return USAGE
    if isinstance(error, NoSuchVersion | NotFound | OSError | ValueError) or type(error) is LookupError:
        return NOT_FOUND
    if type(error).__name__ in ("Damaged", "GcStopped"):  # by name: their modules are not for every command
        return NOT_FOUND
    # The S3 client's errors, without importing it where the lake is a folder.
    return NOT_FOUND if type(error).__module__.startswith("botocore") else None


def open_lake(given: str | None) -> Store:
    """The store at --lake or $GRIST_LAKE. Raises BadConfig, FileNotFoundError where no lake is."""
    store = open_store(lake_uri(given, "", in_job=False), probe=False)
    if store.info(MARKER) is None:
        raise FileNotFoundError(f"there is no lake at {store.uri} (no {MARKER}); `grist run` makes one")
    return store


def versions_of(given: str | None) -> Versions:
    """The versions of the lake at --lake or $GRIST_LAKE. Raises as `open_lake` does."""
    return Versions(open_lake(given), warn=lambda text: note(f"warning: {text}"))


def answer(data: Any, as_json: bool, draw: Callable[[Console], None]) -> None:
    """Prints `data` as JSON, or draws it."""
    if as_json:
        print(json_line(to_json(data), default=str))
    else:
        draw(stdout())


class Terminal(Console):
    """A console that lets no foreign control character through, whoever drew the text and however deep it lies.

    It cuts nothing that is too wide: an id without its end is no id. A reader who left is no error.
    Escaping what is drawn makes it longer than the room it was given: who draws foreign text calls `plain` first, and
    this is what holds where somebody forgot.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich renders it, with control characters in texts escaped."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)

    def print(self, *objects: Any, crop: bool = False, **how: Any) -> None:
        """Prints as rich does, but does not crop."""
        super().print(*objects, crop=crop, **how)

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError, which `Grist.invoke` knows; rich would exit with 1."""
        raise BrokenPipeError


def stdout() -> Console:
    """A console that takes its strings as they are: no markup, no emoji codes, no guessed highlights."""
    columns = os.environ.get("COLUMNS", "")
    knows_width = int(columns) > 0 if columns.isdigit() else sys.stdout.isatty()  # 0 is what some programs leave there
    return Terminal(width=None if knows_width else PIPE_WIDTH, markup=False, emoji=False, highlight=False)


def note(text: str) -> None:
    """A message for people, on stderr; with --quiet none."""
    if not is_quiet():
        print(plain(text), file=sys.stderr)


def fail(text: str) -> None:
    """Why a command does not do what was asked, on stderr, with --quiet too."""
    print(f"error: {plain(text)}", file=sys.stderr)


def say(text: str) -> None:
    """A line of an answer, on stdout."""
    print(plain(text), flush=True)


def counter() -> Callable[..., None] | None:
    """A callback (done, total, ...) that shows progress on one line of stderr; None where that is no terminal, and with
    --quiet."""
    if is_quiet() or not sys.stderr.isatty():
        return None

    def show(done: int, total: int, *what: str) -> None:
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{done:,} of {total:,} {plain(' '.join(what))}", end=end, file=sys.stderr, flush=True)

    return show


def to_json(data: Any) -> Any:
    """Plain data for `json.dumps` from dataclasses, pydantic models, and containers of them."""
    if hasattr(data, "to_json"):
        return data.to_json()
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json")
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {f.metadata.get("json", f.name): to_json(getattr(data, f.name)) for f in dataclasses.fields(data)}
    if isinstance(data, dict):
        return {str(k): to_json(v) for k, v in data.items()}
    if isinstance(data, list | tuple | set | frozenset):
        items = sorted(data) if isinstance(data, set | frozenset) else data
        return [to_json(item) for item in items]
    return data
