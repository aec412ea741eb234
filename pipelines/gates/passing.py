"""Which versions pass the gates: a version that contains one that is held is held with it, whatever it added itself.

A held version stays the base of what extends it, so that no night is lost; nothing is made of any of them until a
person accepts it, or one that contains it, or until they are withdrawn. A held version is no measure either: what comes
after it is compared with the last one that passed, and not with the mistake of yesterday.

What passed, by these gates or because it was accepted, is written down beside the version and not looked at again
(lake/versions/markers.py): a night costs one judgement, however many came before. Written is of the last one that
passed, also where one after it is held. What is held is judged anew each time it is asked for, since another version
may have been accepted meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.accounts.receipt import canonical
from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.markers import create_pass, read_pass
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.gates.held import Gates, held_against

NAMED = 3
"""Held versions whose reasons are told of one that contains them; the others are counted."""
_TAKEDOWN = "forget"
"""The role of its parent in a version that a takedown made (lake/takedown/rewrite.py)."""


@dataclass(frozen=True)
class _Reason:
    version: str
    text: str


@dataclass(frozen=True)
class Judgement:
    """`reasons`: why a version may not go on, a sentence a reason; none: it may. `passed`: the last version that may,
    itself or one before it, if there is any."""

    reasons: list[str]
    passed: Manifest | None


def held(versions: Versions, manifest: Manifest, gates: Gates, accepted: Collection[str] = ()) -> list[str]:
    """The reasons of `judge`."""
    return judge(versions, manifest, gates, accepted).reasons


def judge(versions: Versions, manifest: Manifest, gates: Gates, accepted: Collection[str] = ()) -> Judgement:
    """Whether a version may go on. Writes nothing.

    `accepted`: exact versions that may though a gate holds them, each with all that it contains.
    """
    line, passed = _since_passed(versions, manifest, gates, accepted)
    before, reasons = passed, list[_Reason]()
    for name, number in line:
        each = manifest if (name, number) == _place(manifest) else versions.manifest(name, number)
        contained = reasons if each.parent is not None else []
        base = before if each.parent is not None and each.parent.role != _TAKEDOWN else None
        own = held_against(versions, each, _measure(each, passed), base, gates)
        reasons = [*(_Reason(str(each), text) for text in own), *contained]
        before = each
        if not reasons:
            passed = each
    return Judgement(_in_words(manifest, reasons), passed)


def note_passed(versions: Versions, manifest: Manifest, gates: Gates, accepted: Collection[str] = ()) -> None:
    """Writes down that a version passed, for whoever asks by the same gates; nothing where that is known."""
    if not _is_noted(versions, manifest, gates):
        by = str(manifest) if str(manifest) in accepted else None
        create_pass(versions.store, *_place(manifest), _digest(gates), by)


def _since_passed(
    versions: Versions, manifest: Manifest, gates: Gates, accepted: Collection[str]
) -> tuple[list[tuple[str, int]], Manifest | None]:
    """(this version and those before it that are not known to have passed, oldest first; the last that is known to).
    Places and no manifests: of a dataset that nobody judged yet there may be a thousand."""
    line: list[tuple[str, int]] = []
    at: Manifest | None = manifest
    while at is not None and not _is_passed(versions, at, gates, accepted):
        line.append(_place(at))
        at = _before(versions, at)
    return line[::-1], at


def _is_passed(versions: Versions, manifest: Manifest, gates: Gates, accepted: Collection[str]) -> bool:
    return str(manifest) in accepted or _is_noted(versions, manifest, gates)


def _is_noted(versions: Versions, manifest: Manifest, gates: Gates) -> bool:
    try:
        return read_pass(versions.store, *_place(manifest), _digest(gates))
    except Unreadable as error:  # it is judged again, which costs time alone
        versions.warn(error)
        return False


def _before(versions: Versions, manifest: Manifest) -> Manifest | None:
    """The version that it extends, withdrawn or not, since it contains that; else the newest earlier one that was not
    withdrawn."""
    if manifest.parent is not None:
        return versions.manifest(manifest.parent.dataset, manifest.parent.version)
    gone = versions.withdrawn(manifest.dataset)
    earlier = (n for n in reversed(versions.numbers(manifest.dataset)) if n < manifest.version and n not in gone)
    number = next(earlier, None)
    return None if number is None else versions.manifest(manifest.dataset, number)


def _measure(manifest: Manifest, passed: Manifest | None) -> Manifest | None:
    """What a version is compared with: the last one before it that passed, if that has its form. A version that a
    takedown made took nothing in, and is compared with none."""
    if passed is None or passed.form != manifest.form:
        return None
    return None if manifest.parent is not None and manifest.parent.role == _TAKEDOWN else passed


def _in_words(manifest: Manifest, reasons: Sequence[_Reason]) -> list[str]:
    """Its own reasons, then those of versions that it contains, the newest first."""
    own = [reason.text for reason in reasons if reason.version == str(manifest)]
    contained = dict.fromkeys(reason.version for reason in reasons if reason.version != str(manifest))
    named = list(contained)[:NAMED]
    inherited = [
        f"{manifest} contains {reason.version}, which is held: {reason.text}"
        for reason in reasons
        if reason.version in named
    ]
    if more := len(contained) - len(named):
        inherited.append(f"so are {more:,} more versions that it contains")
    return own + inherited


def _place(manifest: Manifest) -> tuple[str, int]:
    return manifest.dataset, manifest.version


def _digest(gates: Gates) -> str:
    """Of the thresholds: a pass by others is none."""
    return digest_of(b"gates", canonical(asdict(gates)))
