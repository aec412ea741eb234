"""Markers of a version: a tag gives it a name for good, a withdrawal takes it out of use for good, a pass says that
gates let it go on.

Each is a small file beside the versions (lake/store/sealed.py), created once and never changed: of two who tag at the
same time one is told so, and what a tag names cannot move under who trained on it. There is no way back from a
withdrawal: a takedown that could be undone would be none.
"""

from __future__ import annotations

import re

from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.sealed import read_note, write_note

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*")
_EXACT = re.compile(_NAME.pattern + r"@v[1-9][0-9]*")


def is_exact(text: str) -> bool:
    """Whether it has the form of a version's name with its number: NAME@vN."""
    return _EXACT.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Raises ValueError for what cannot be the name of a dataset."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"dataset name {name!r}: lower-case letters, digits, '_', '-', parts joined by '.'")


def tag_key(name: str, tag: str) -> str:
    """Where the tag of a dataset stands in a store."""
    return f"datasets/{name}/tags/{tag}.json"


def create_tag(store: Store, name: str, version: int, tag: str) -> bool:
    """Writes the tag. False: it names another version already, which `read_tag` tells."""
    return store.create(tag_key(name, tag), write_note({"dataset": name, "tag": tag}, version=version))


def read_tag(store: Store, name: str, tag: str) -> int:
    """The version that a tag names. Raises Unreadable, NotFound."""
    remedy = f"restore it from a copy of the lake, or delete it and run `grist tag {name}@vN {tag}`"
    return int(read_note(store, tag_key(name, tag), {"dataset": name, "tag": tag}, remedy, version=int)["version"])


def withdrawal_key(name: str, version: int) -> str:
    """Where the withdrawal of a version stands in a store."""
    return f"datasets/{name}/withdrawn/{version:08d}.json"


def create_withdrawal(store: Store, name: str, version: int, reason: str) -> bool:
    """Writes the withdrawal. False: the version was withdrawn before, for a reason that stays."""
    return store.create(withdrawal_key(name, version), write_note({"dataset": name, "version": version}, reason=reason))


def read_reason(store: Store, name: str, version: int) -> str:
    """Why a version was withdrawn. Raises Unreadable, NotFound."""
    remedy = (
        f"{name}@v{version} stays withdrawn; restore the file from a copy of the lake, or delete it and withdraw again"
    )
    about = {"dataset": name, "version": version}
    return str(read_note(store, withdrawal_key(name, version), about, remedy, reason=str)["reason"])


def pass_key(name: str, version: int, gates: str) -> str:
    """Where it stands in a store that gates let a version pass. `gates`: the sha256 of their thresholds."""
    return f"datasets/{name}/passed/{version:08d}-{gates}.json"


def create_pass(store: Store, name: str, version: int, gates: str, accepted: str | None) -> bool:
    """Writes that a version passed these gates. `accepted`: the version that a person let pass though they hold it or
    what it contains; None: they let it pass. False: it passed before."""
    about = {"dataset": name, "version": version, "gates": gates}
    return store.create(pass_key(name, version, gates), write_note(about, accepted=accepted))


def read_pass(store: Store, name: str, version: int, gates: str) -> bool:
    """Whether a version passed these gates. Raises Unreadable."""
    about = {"dataset": name, "version": version, "gates": gates}
    try:
        read_note(store, pass_key(name, version, gates), about, "delete it, and the version is judged again")
    except NotFound:
        return False
    return True
