"""Versions: slots that can be taken once. Creating the next slot is the commit; nothing follows it.

`datasets/NAME/versions/00000001.json` is created exclusively (link on a local disk, conditional PUT on S3), so
of many writers one wins a slot. An independent writer that lost reads the manifest it lost to and takes the
next; a writer that extends a base must not, because what it linked against has moved: it gets CommitConflict.
Before, the balance is checked and every object is seen to exist. Tags, withdrawals and pins are create-only as well.
"""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.store.present import MissingObjects as MissingObjects
from gristmill.lake.store.present import missing
from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions import history
from gristmill.lake.versions.folded import Unfolder
from gristmill.lake.versions.manifest import (
    FORMAT,
    RESTORE,
    Draft,
    Manifest,
    Outline,
    encode,
    folded,
    parse,
    parse_outline,
    unfolded,
)
from gristmill.lake.versions.markers import check_name as check_name
from gristmill.lake.versions.markers import create_tag, create_withdrawal, read_reason, read_tag
from gristmill.lake.versions.roots import slot_key, slots_below

log = logging.getLogger("gristmill")

_TAG = re.compile(r"(?!v\d+$|latest$)[A-Za-z0-9][A-Za-z0-9._-]*")


class CommitConflict(Exception):
    """The slot after the expected parent is taken by another run: what depends on the parent must be redone."""


class NoSuchVersion(LookupError):
    """A dataset, version or tag that does not exist, or one that was withdrawn."""


class Versions:
    """All datasets of a store, their versions, tags and withdrawals.

    A tag or withdrawal that cannot be read harms nothing else: `warn` is told of it once, with the way out.
    """

    def __init__(self, store: Store, warn: Callable[[str], None] | None = None) -> None:
        self.store = store
        self._unfolder = Unfolder(store)
        self._warn, self._warned = warn or (lambda text: log.warning("%s", text)), set[str]()

    def warn(self, error: Exception | str) -> None:
        """Says it, unless it was said before."""
        if str(error) not in self._warned:
            self._warned.add(str(error))
            self._warn(str(error))

    def names(self) -> list[str]:
        """Every dataset that has a version, sorted."""
        return sorted({info.key.split("/")[1] for info in self.store.list("datasets/") if "/versions/" in info.key})

    def numbers(self, name: str) -> list[int]:
        """Version numbers in order; a withdrawn version keeps its number."""
        return list(self.slots(name))

    def slots(self, name: str) -> dict[int, int]:
        """Version numbers in order, with the sizes of their manifests' files."""
        return {number: info.size for number, info in slots_below(self.store, f"datasets/{name}/versions/")}

    def latest(self, name: str) -> int | None:
        """The newest version that is not withdrawn."""
        gone = self.withdrawn(name)
        return max((n for n in self.numbers(name) if n not in gone), default=None)

    def manifest(self, name: str, version: int) -> Manifest:
        """A version, compared with its seal and its slot. Raises NoSuchVersion, Unreadable, DamagedObject."""
        return self._manifest(name, version, self._in_slot(name, version))

    def read(self, name: str, version: int) -> tuple[Manifest, history.Summary]:
        """A version, and the summary that later ones have of it. Raises as `manifest`."""
        file = self._in_slot(name, version)
        manifest = self._manifest(name, version, file)
        with self._naming(name, version):
            return manifest, history.Summary.of(manifest, file)

    def _manifest(self, name: str, version: int, file: bytes) -> Manifest:
        with self._naming(name, version):
            manifest = parse(file)
            _check_place(manifest, name, version)
            manifest = unfolded(self._unfolder, manifest)
            if manifest.digest != manifest.content_digest:
                raise ValueError(f"its shards and ledgers do not have the digest {manifest.digest[:12]}")
            return manifest

    def outline(self, name: str, version: int) -> Outline:
        """The ledgers of a version. Raises as `manifest`."""
        with self._naming(name, version):
            outline = parse_outline(self._in_slot(name, version))
            _check_place(outline, name, version)
            return outline.model_copy(update={"ledgers": self._unfolder.unfold(outline.ledgers)})

    def _in_slot(self, name: str, version: int) -> bytes:
        try:
            return self.store.get(slot_key(name, version))
        except NotFound:
            raise NoSuchVersion(self._missing(name, f"v{version}")) from None

    @contextmanager
    def _naming(self, name: str, version: int) -> Iterator[None]:
        """Whatever is wrong with a manifest is raised as Unreadable, with its file and the way out."""
        try:
            yield
        except (ValueError, NotFound) as error:
            raise Unreadable(
                f"{name}@v{version}: its manifest {slot_key(name, version)} in {self.store.uri} cannot be read"
                f" ({error}); {RESTORE} (`grist verify` looks at all)"
            ) from error

    def manifests(self, name: str, *, newest_first: bool = False) -> Iterator[Manifest]:
        """Every version of a dataset in order, read a few at a time. Raises as `manifest`."""
        numbers = sorted(self.numbers(name), reverse=newest_first)
        with ThreadPoolExecutor(8) as pool:  # many small GETs; a remote store answers them side by side
            for start in range(0, len(numbers), 64):
                yield from pool.map(lambda n: self.manifest(name, n), numbers[start : start + 64])

    def resolve(self, ref: str) -> Manifest:
        """`web@v3`, `web@some-tag`, or `web` for the latest."""
        name, _, at = ref.partition("@")
        check_name(name)
        if not at or at == "latest":
            latest = self.latest(name)
            if latest is None:
                raise NoSuchVersion(self._missing(name, "version that is not withdrawn"))
            return self.manifest(name, latest)
        if re.fullmatch(r"v\d+", at):
            return self.manifest(name, int(at[1:]))
        return self.manifest(name, self.tagged(name, at))

    def tagged(self, name: str, tag: str) -> int:
        """The version that a tag names. Raises NoSuchVersion, Unreadable."""
        check_name(name)
        if _TAG.fullmatch(tag):
            with suppress(NotFound):
                return read_tag(self.store, name, tag)
        raise NoSuchVersion(self._missing(name, f"tag {tag!r}"))

    def _missing(self, name: str, what: str) -> str:
        have = [f"v{n}" for n in self.numbers(name)] + sorted(self.tags(name))
        if have:
            return f"{name} has no {what}; it has {', '.join(have[-8:])}"
        return f"there is no dataset {name!r} in {self.store.uri}; it has {', '.join(self.names()) or 'none'}"

    def find_run(self, name: str, run_key: str) -> Manifest | None:
        """The newest version that this very run made, unless it was withdrawn."""
        gone = self.withdrawn(name)
        for manifest in self.manifests(name, newest_first=True):
            if manifest.run_key == run_key and manifest.version not in gone:
                return manifest
        return None

    def taken_down(self, name: str, run_key: str) -> str | None:
        """Why the newest version that this very run made was withdrawn; None if there is no such version."""
        gone = self.withdrawn(name)
        for number in sorted(gone, reverse=True):
            if self.manifest(name, number).run_key == run_key:
                return f"{name}@v{number} was withdrawn: {gone[number]}"
        return None

    def commit(self, draft: Draft, *, expected_parent: int | None = None) -> Manifest:
        """Takes the next slot. With `expected_parent` (0: none yet) only the slot right after it (and after
        versions withdrawn since) will do.

        Returns an equal run's version if that one was first. Raises BalanceError, CommitConflict, MissingObjects.
        """
        check_name(draft.dataset)
        draft.check()
        draft.check_shards()
        # A draft that extends a version may have that one's history, which is shorter than its own, and may be lost.
        own = tuple(ref for ref in draft.attachments if ref.kind != history.KIND)
        if bad := self.missing((*draft.shards, *draft.ledgers, *own)):
            raise MissingObjects(f"{draft.dataset}: not committed, {len(bad)} objects are not there: {bad[0]}")
        # `create` takes equal bytes in the slot for its own, written by a request whose answer was lost. The nonce
        # makes them this call's alone: two runs of one recipe would else both believe to have won.
        provenance = {"commit_id": uuid.uuid4().hex, **draft.made}
        draft = draft.model_copy(update={"made": provenance, "attachments": own})
        number = expected_parent if expected_parent is not None else max(self.numbers(draft.dataset), default=0)
        if expected_parent is None:
            # Only now that the slot is chosen: an equal run that commits after this look stands in one of the slots
            # that are tried below, and is met there as the winner.
            equal = self.find_run(draft.dataset, draft.run_key)
            if equal is not None:
                return equal
        while True:
            if expected_parent and expected_parent in self.withdrawn(draft.dataset):
                raise CommitConflict(
                    f"{draft.dataset}: v{expected_parent}, on which it was built, was withdrawn meanwhile. Nothing was"
                    " committed: run the same command again."
                )
            number += 1
            manifest = self._numbered(draft, number)
            if self.store.create(slot_key(draft.dataset, number), encode(folded(self.store, manifest))):
                return manifest
            winner = self.manifest(draft.dataset, number)
            if number in self.withdrawn(draft.dataset):
                continue  # nobody builds on it: the draft depends on what it did before
            if winner.run_key == draft.run_key:
                return winner
            if expected_parent is not None:
                raise CommitConflict(
                    f"{draft.dataset}: expected v{expected_parent} to be the latest, but v{number} is there already"
                    f" (run {winner.run_key[:12]}). Nothing was lost: run the same command again."
                )

    def _numbered(self, draft: Draft, number: int) -> Manifest:
        """The draft as the manifest of this slot, chained to those before. Raises NoSuchVersion for a gap."""
        fields = {name: getattr(draft, name) for name in Draft.model_fields} | {"format": FORMAT}
        previous = None
        if number > 1:
            file = self._in_slot(draft.dataset, number - 1)
            previous = hashlib.sha256(file).hexdigest()
            fields["attachments"] = (*draft.attachments, *self._history(draft.dataset, number - 1, file))
        return Manifest(**fields, version=number, previous=previous, digest=draft.content_digest)

    def _history(self, name: str, last: int, file: bytes) -> tuple[ObjectRef, ...]:
        """Blocks of summaries of versions 1 to `last`, whose manifest is `file`; what it has of them is taken over."""
        if last < history.BLOCK:
            return ()
        blocks: tuple[ObjectRef, ...] = ()
        if last not in self.withdrawn(name):  # else gc takes what it alone holds, perhaps at this moment
            with suppress(ValueError):  # a manifest that cannot be read: `verify` and whoever asks for it say so
                blocks = history.blocks_of(parse(file).attachments)
        if self.missing(blocks):
            blocks = ()
        return history.extended(self.store, name, blocks, last, lambda number: self.read(name, number)[1])

    def missing(self, refs: Iterable[ObjectRef]) -> list[str]:
        """One line for every object that is not there or has another size."""
        return missing(self.store, refs)

    def tags(self, name: str) -> dict[str, int]:
        """Tags that can be read; `warn` is told of others."""
        prefix = f"datasets/{name}/tags/"
        tags: dict[str, int] = {}
        for info in self.store.list(prefix):
            tag = info.key[len(prefix) :].removesuffix(".json")
            if info.key.endswith(".json") and _TAG.fullmatch(tag):
                try:
                    tags[tag] = read_tag(self.store, name, tag)
                except Unreadable as error:
                    self.warn(error)
        return tags

    def tag(self, name: str, version: int, tag: str) -> None:
        """Gives a version a name for good. Raises FileExistsError if the tag names another version."""
        if not _TAG.fullmatch(tag):
            raise ValueError(f"tag {tag!r}: letters, digits, '.', '_', '-'; not 'latest' and not like 'v3'")
        self.manifest(name, version)
        if create_tag(self.store, name, version, tag):
            return
        tagged = read_tag(self.store, name, tag)
        if tagged != version:
            raise FileExistsError(f"{name}@{tag} is v{tagged} already; tags are never moved")

    def withdrawn(self, name: str) -> dict[int, str]:
        """Withdrawn versions and the reason given. The name of the file is what withdraws: where the reason cannot be
        read the version stays withdrawn."""
        reasons: dict[int, str] = {}
        for number, info in slots_below(self.store, f"datasets/{name}/withdrawn/"):
            try:
                reasons[number] = read_reason(self.store, name, number)
            except Unreadable as error:
                self.warn(error)
                reasons[number] = f"{info.key} does not say why"
        return reasons

    def withdraw(self, name: str, version: int, reason: str) -> None:
        """Takes a version down: no root for gc, never returned by its run key. The first reason stays."""
        self.manifest(name, version)
        create_withdrawal(self.store, name, version, reason)


def _check_place(manifest: Manifest | Outline, name: str, version: int) -> None:
    if (manifest.dataset, manifest.version) != (name, version):
        raise ValueError(f"it is the manifest of {manifest}")
