"""The files of a checkpoint, and who else keeps them: what can be said of them without torch.

`state.json` says what the checkpoint is of and has the digests of the other two, so that whoever takes one from
anywhere can tell whether it is what was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

FORMAT = 1
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
ASIDE = ".aside-"
"""What names begin with in the folder of checkpoints whose content is being written, or removed: nobody reads it."""


class Mirror(Protocol):
    """Keeps checkpoints elsewhere, as in an object store, under the names of their folders, `step-000000012`.

    Each is whole or not listed, whenever its writer or its remover is killed. Any call may raise what the store does.
    """

    def address(self, name: str) -> str:
        """Where a checkpoint is, for people."""

    def names(self) -> list[str]:
        """Of the whole ones, the one of the most steps last."""

    def fetch(self, name: str, folder: Path) -> None:
        """Copies the files of a checkpoint into an empty folder; a file that is lost is left out."""

    def keep(self, folder: Path) -> None:
        """Stores a checkpoint under the name of its folder, which stays; the checkpoint is kept on return."""

    def remove_others(self, names: Collection[str]) -> None:
        """Removes all that is not of these checkpoints, half stored ones too."""


def checked(folder: Path, address: str) -> dict[str, Any]:
    """What `state.json` says, once the other files have the digests that stand there. `address`: for messages.

    Raises ValueError for a checkpoint that is damaged, or of a later format.
    """
    try:
        document: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        version, digests, _, _ = (document[name] for name in ("format", "sha256", "identity", "reached"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(address, f"{STATE} cannot be read ({error})") from error
    if version > FORMAT:
        raise ValueError(f"checkpoint {address} has format {version}, this release reads up to {FORMAT}: upgrade")
    for name in (WEIGHTS, OPTIMIZER):
        if not (folder / name).is_file() or sha256_of(folder / name) != digests.get(name):
            raise damaged(address, f"{name} is missing, or not what was written")
    return document


def damaged(address: str, what: str) -> ValueError:
    """The error of a checkpoint that is not what was written."""
    return ValueError(f"checkpoint {address}: {what}. Remove it: the run then goes on from the one before")


def sha256_of(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
