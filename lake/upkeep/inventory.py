"""Inventory: every file of a lake by its kind, read and compared with its name.

Manifests and the objects that versions hold are verify's (lake/upkeep/verify.py). Here are the rest: tags, withdrawals,
passes, pins, receipts, notes on inputs, files of live runs, the suppression list. A name that belongs to no kind is
reported as such, so that a file of a new kind cannot go unseen: it needs a row in KINDS. Other objects are hashed where
that is asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from gristmill.lake.accounts.receipt import read_receipt
from gristmill.lake.inputs.notes import read_input_note
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.sealed import Unreadable, read_note
from gristmill.lake.versions.growth import read_pin
from gristmill.lake.versions.lease import about_of, read_announcement
from gristmill.lake.versions.markers import read_pass, read_reason, read_tag
from gristmill.lake.versions.roots import Slots

_BLOCK = 1 << 20


class Oddity(NamedTuple):
    """A file that is not what its name says. `severity`: error | warning, where the lake helps itself."""

    severity: str
    what: str
    key: str
    message: str


class _Looked(NamedTuple):
    store: Store
    slots: Slots


class Kind(NamedTuple):
    """A kind of file. `pattern`: of its key; `what`: of its findings. `check(looked, key, match)` raises Unreadable for
    one that is not what its name says; `_nothing` for files that are checked elsewhere."""

    pattern: re.Pattern[str]
    what: str
    severity: str
    check: Callable[[_Looked, str, re.Match[str]], None]


def _nothing(looked: _Looked, key: str, match: re.Match[str]) -> None:
    """Its name is all that there is to check here."""


def _tag(looked: _Looked, key: str, match: re.Match[str]) -> None:
    name, tag = match[1], match[2]
    version = read_tag(looked.store, name, tag)
    if version not in looked.slots.versions.get(name, ()):
        raise Unreadable(
            f"{key} names {name}@v{version}, which does not exist: restore its manifest, or delete the tag"
        )


def _withdrawal(looked: _Looked, key: str, match: re.Match[str]) -> None:
    name, version = match[1], int(match[2])
    read_reason(looked.store, name, version)
    if version not in looked.slots.versions.get(name, ()):
        raise Unreadable(f"{key} withdraws {name}@v{version}, which does not exist: restore its manifest")


def _pass(looked: _Looked, key: str, match: re.Match[str]) -> None:
    name, version = match[1], int(match[2])
    read_pass(looked.store, name, version, match[3])
    if version not in looked.slots.versions.get(name, ()):
        raise Unreadable(f"{key} lets {name}@v{version} pass, which does not exist: restore its manifest")


def _pin(looked: _Looked, key: str, match: re.Match[str]) -> None:
    name, base = match[1], read_pin(looked.store, match[1], match[2], int(match[3]))
    if base and base not in looked.slots.versions.get(name, ()):
        raise Unreadable(
            f"{key} builds on {name}@v{base}, which does not exist: restore its manifest, or delete the pin"
        )


def _receipt(looked: _Looked, key: str, match: re.Match[str]) -> None:
    read_receipt(looked.store, match[2])


def _note(looked: _Looked, key: str, match: re.Match[str]) -> None:
    read_input_note(looked.store, key)


def _lease(looked: _Looked, key: str, match: re.Match[str]) -> None:
    read_note(looked.store, key, about_of(key), "if its run is over, delete it; a live one writes it anew", dataset=str)


def _announcement(looked: _Looked, key: str, match: re.Match[str]) -> None:
    read_announcement(looked.store, key)


_SHA = r"([0-9a-f]{2})/(\1[0-9a-f]{62})"
KINDS = (
    Kind(re.compile(r"lake\.json"), "lake", "error", _nothing),  # read when the lake is opened
    Kind(re.compile(r"objects/" + _SHA), "object", "error", _nothing),
    Kind(re.compile(r"datasets/[^/]+/versions/.*"), "manifest", "error", _nothing),
    Kind(re.compile(r"datasets/([^/]+)/withdrawn/(\d{8,})\.json"), "withdrawal", "error", _withdrawal),
    Kind(re.compile(r"datasets/[^/]+/withdrawn/.*"), "withdrawal", "error", _nothing),
    Kind(re.compile(r"datasets/([^/]+)/tags/([A-Za-z0-9][A-Za-z0-9._-]*)\.json"), "tag", "error", _tag),
    Kind(re.compile(r"datasets/([^/]+)/passed/(\d{8,})-([0-9a-f]{64})\.json"), "pass", "warning", _pass),
    Kind(re.compile(r"datasets/([^/]+)/pins/([0-9a-f]{64})/(\d{4,})\.json"), "pin", "warning", _pin),
    Kind(re.compile(r"receipts/" + _SHA + r"\.json"), "receipt", "error", _receipt),
    Kind(re.compile(r"inputs/" + _SHA + r"\.json"), "note", "warning", _note),
    Kind(re.compile(r"runs/[0-9a-f]{32}/lease\.json"), "lease", "warning", _lease),
    Kind(re.compile(r"runs/[0-9a-f]{32}/clock\.json"), "lease", "warning", _nothing),
    Kind(re.compile(r"runs/[0-9a-f]{32}/\d{4,}\.json"), "lease", "error", _announcement),
    Kind(re.compile(r"runs/[0-9a-f]{64}/.*"), "run", "warning", _nothing),  # whoever goes on with it reads it
    Kind(re.compile(r"(suppressions|takedowns)/(\d{8,}|[0-9a-f]{64})\.json"), "suppression", "error", _nothing),
)
"""Every kind of file in a lake. The first that fits counts."""


def take_inventory(store: Store, slots: Slots) -> Iterator[Oddity]:
    """What is wrong with files that are neither manifests nor objects."""
    looked = _Looked(store, slots)
    to_read: list[tuple[str, Kind]] = []
    for info in store.list():
        kind = next((kind for kind in KINDS if kind.pattern.fullmatch(info.key)), None)
        if kind is None:
            yield Oddity("warning", "foreign", info.key, f"{info.key} is no file of a lake: move it away")
        elif kind.check is not _nothing:
            to_read.append((info.key, kind))
    with ThreadPoolExecutor(16) as pool:
        for oddity in pool.map(lambda item: _look(looked, *item), to_read):
            if oddity is not None:
                yield oddity


def _look(looked: _Looked, key: str, kind: Kind) -> Oddity | None:
    """What is wrong with one file, if anything is."""
    match = kind.pattern.fullmatch(key)
    assert match is not None  # as it did a moment ago
    try:
        kind.check(looked, key, match)
    except NotFound:  # its run ended, or gc took it, since it was listed
        return None
    except Unreadable as error:
        return Oddity(kind.severity, kind.what, key, str(error))
    return None


def unheld(store: Store, held: Collection[str]) -> Iterator[Oddity]:
    """Objects that no manifest names (results on their way, members of lists) and that are not what they are named
    after: a later run would read them."""
    names = [info.key.rpartition("/")[2] for info in store.list("objects/")]
    rest = [name for name in names if name not in held and re.fullmatch(r"[0-9a-f]{64}", name)]
    with ThreadPoolExecutor(4) as pool:
        for name, digest in zip(rest, pool.map(lambda name: _digest(store, name), rest), strict=True):
            if digest not in (None, name):
                message = f"object {name[:12]}, which no manifest names itself, is damaged: delete it, and a run that"
                yield Oddity("error", "corrupt", name, f"{message} needs it makes it again")


def _digest(store: Store, name: str) -> str | None:
    """The sha256 of the object of this name, or in words why it has none; None where it is gone."""
    digest = hashlib.sha256()
    try:
        with store.open(f"objects/{name[:2]}/{name}") as source:
            while block := source.read(_BLOCK):
                digest.update(block)
    except NotFound:
        return None
    except OSError as error:
        return f"unreadable: {error}"
    return digest.hexdigest()
