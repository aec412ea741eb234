"""Notes on input files: what a scan found, so that a file that did not change is not read again for its digest.

A note is a shortcut and no proof: it stands under (address, size, times or etag) of a file, says so inside, and is
sealed. One that is damaged, or that stands in another file's place, is not used, and the file is scanned again; a run
that believed it would commit one file's records under another's name.
"""

from __future__ import annotations

import logging
from typing import Any

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.inputs.files import InputInfo
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.sealed import Unreadable, read_note, unreadable, write_note

log = logging.getLogger("gristmill")

_ABOUT = ("uri", "size", "modified", "changed", "etag")
"""What tells a file that was scanned from one that changed since."""


def known(store: Store, info: InputInfo) -> tuple[str, str] | None:
    """(digest, kind) found when this file was scanned; None if it was not, or has changed since."""
    try:
        note = read_input_note(store, _fingerprint(info))
    except NotFound:
        return None
    except Unreadable as error:
        log.warning("%s", error)
        return None
    if note["format"] == 1:  # it does not say of which file it is, so it might be another's
        return None
    return note["digest"], note["kind"]


def remember(store: Store, info: InputInfo, digest_and_kind: tuple[str, str]) -> None:
    """Notes (digest, kind). A killed run may leave it without a receipt, and then the file is scanned again."""
    store.put(_fingerprint(info), write_note(_about(info), digest=digest_and_kind[0], kind=digest_and_kind[1]))


def read_input_note(store: Store, key: str) -> dict[str, Any]:
    """The note under a key. Raises Unreadable for one that is damaged or in the place of another; NotFound."""
    remedy = "it is not used, and the file is scanned again; delete the note"
    note = read_note(store, key, {}, remedy, digest=str, kind=str)
    if note["format"] != 1 and key != _key(*(note.get(name) for name in _ABOUT)):
        raise unreadable(store, key, f"it is about {note.get('uri')!r}, whose notes have other names", remedy)
    return note


def _about(info: InputInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in _ABOUT}


def _fingerprint(info: InputInfo) -> str:
    return _key(*_about(info).values())


def _key(uri: Any, size: Any, modified: Any, changed: Any, etag: Any) -> str:
    key = digest_of(str(uri), str(size), repr(modified), repr(changed), etag or "")
    return f"inputs/{key[:2]}/{key}.json"
