"""Checkpoints of a run in a lake whose store is no folder of this machine: an object a file, below the run's prefix.

Of a checkpoint `state.json` goes up last and is removed first, and what lacks a file is no checkpoint: so each is whole
or absent, wherever its writer was killed. `state.json` has the digests of the other files, which are compared when it
is read (model/train/checkpoint_files.py). The files are put from hard links, as a store takes away what it is handed.
In a lake in a folder there is nothing to mirror: the trainer writes where checkpoints stay.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.outage import is_outage
from gristmill.model.train.checkpoint_files import ASIDE, OPTIMIZER, STATE, WEIGHTS
from gristmill.stages.train.hold import RunsElsewhere

_FILES = (WEIGHTS, OPTIMIZER, STATE)
"""Of a checkpoint, in the order in which they are stored."""
_BLOCK = 1 << 20
_NAME = re.compile(r"step-\d{9}")


class NotKept(OSError):
    """A checkpoint could not be stored; its cause is the store's error. Those before it are where they were."""


class StoreAway(NotKept, ConnectionError):
    """The same, where the store may be there again in a minute: causes are lost where an error travels by pickle."""


class CheckpointMirror:
    """The checkpoints below a prefix of a store, "runs/<work key>/checkpoints/": see `checkpoint_files.Mirror`.

    `beside`: files by their keys, of which a copy goes up with each checkpoint, before its `state.json`. `check` raises
    what ends the run when its checkpoints are another process's by now.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        beside: Mapping[str, Path] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._prefix, self._beside, self._check = store, prefix, beside or {}, check

    def address(self, name: str) -> str:
        """Store and key."""
        return f"{self._store.uri}/{self._prefix}{name}"

    def names(self) -> list[str]:
        """Of those that have all files, in the order of their steps."""
        return sorted(name for name, files in self._files().items() if files.issuperset(_FILES))

    def fetch(self, name: str, folder: Path) -> None:
        """Copies the files into an empty folder; one that is lost is left out."""
        for file in _FILES:
            with suppress(NotFound):
                source = self._store.open(f"{self._prefix}{name}/{file}")
                with source, (folder / file).open("wb") as sink:
                    shutil.copyfileobj(source, sink, _BLOCK)

    def keep(self, folder: Path) -> None:
        """Stores the files of a checkpoint, `state.json` last. Raises NotKept, and what `check` does."""
        links = folder.with_name(f"{ASIDE}{uuid.uuid4().hex}")
        links.mkdir()
        try:
            self._check()
            self._store.delete(f"{self._prefix}{folder.name}/{STATE}")  # of one at this step that somebody has damaged
            for key, path in self._beside.items():
                shutil.copyfile(path, links / path.name)
                self._store.put_file(key, links / path.name)
            for file in _FILES:
                if file == STATE:
                    self._check()  # the files before it take minutes
                os.link(folder / file, links / file)
                self._store.put_file(f"{self._prefix}{folder.name}/{file}", links / file)
        except RunsElsewhere:
            raise
        except Exception as error:
            kind = StoreAway if is_outage(error) else NotKept
            raise kind(f"checkpoint {self.address(folder.name)} was not stored: {error}") from error
        finally:
            shutil.rmtree(links)

    def remove_others(self, names: Collection[str]) -> None:
        """Removes what is of no checkpoint of these names: of each `state.json` first. Raises what `check` does."""
        self._check()
        for name, files in self._files().items():
            if name not in names:
                for file in sorted(files, key=lambda file: file != STATE):
                    self._store.delete(f"{self._prefix}{name}/{file}")

    def _files(self) -> dict[str, set[str]]:
        """Names of files by checkpoint."""
        files: dict[str, set[str]] = {}
        for info in self._store.list(self._prefix):
            name, _, file = info.key.removeprefix(self._prefix).partition("/")
            if _NAME.fullmatch(name):
                files.setdefault(name, set()).add(file)
        return files
