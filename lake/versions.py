"""Versions: slots that can be taken once. Creating the next slot is the commit; nothing follows it.

`datasets/NAME/versions/00000001.json` is created exclusively (link on a local disk, conditional PUT on S3), so
of many writers one wins a slot. An independent writer that lost reads the manifest it lost to and takes the
next; a writer that extends a base must not, because what it linked against has moved: it gets CommitConflict.
Before the slot is taken the balance is checked and every object is seen to exist. Tags, withdrawals and pins
are create-only as well.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from lake.manifest import FORMAT, Draft, Manifest
from lake.objects import ObjectRef, brief
from lake.store import NotFound, Store

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*")
_SLOT = re.compile(r"(\d{8,})\.json")
_TAG = re.compile(r"(?!v\d+$|latest$)[A-Za-z0-9][A-Za-z0-9._-]*")


class CommitConflict(Exception):
    """The slot after the expected parent is taken by another run: what depends on the parent must be redone."""


class MissingObjects(FileNotFoundError):
    """Objects of a draft are not in the store (gc, or somebody's hand): the work that makes them is to be redone."""


class NoSuchVersion(LookupError):
    """A dataset, version or tag that does not exist, or one that was withdrawn."""


def _slot(name: str, version: int) -> str:
    return f"datasets/{name}/versions/{version:08d}.json"


class Versions:
    """All datasets of a store, their versions, tags and withdrawals."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def names(self) -> list[str]:
        return sorted({info.key.split("/")[1] for info in self.store.list("datasets/") if "/versions/" in info.key})

    def numbers(self, name: str) -> list[int]:
        """Version numbers in order; a withdrawn version keeps its number."""
        return [number for number, _ in self._slots(f"datasets/{name}/versions/")]

    def _slots(self, prefix: str) -> Iterator[tuple[int, str]]:
        """(number, key) of each file that is one of ours; `verify` reports what else lies there."""
        for info in self.store.list(prefix):
            if match := _SLOT.fullmatch(info.key, len(prefix)):
                yield int(match[1]), info.key

    def latest(self, name: str) -> int | None:
        """The newest version that is not withdrawn."""
        gone = self.withdrawn(name)
        return max((n for n in self.numbers(name) if n not in gone), default=None)

    def manifest(self, name: str, version: int) -> Manifest:
        try:
            data = self.store.get(_slot(name, version))
        except NotFound:
            raise NoSuchVersion(self._missing(name, f"v{version}")) from None
        try:
            found = json.loads(data)["format"]
            if found == FORMAT:
                return Manifest.model_validate_json(data)
        except (ValueError, KeyError, TypeError) as error:  # pydantic's ValidationError is a ValueError
            raise ValueError(
                f"{name}@v{version}: its manifest {_slot(name, version)} in {self.store.uri} cannot be read"
                f" ({brief(error)}); restore it from a copy of the lake (`grist verify` looks at all)"
            ) from error
        raise ValueError(
            f"{name}@v{version} has manifest format {found}; this gristmill reads format {FORMAT}: upgrade it"
        )

    def manifests(self, name: str, *, newest_first: bool = False) -> Iterator[Manifest]:
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
        tagged = self.tags(name).get(at)
        if tagged is None:
            raise NoSuchVersion(self._missing(name, f"tag {at!r}"))
        return self.manifest(name, tagged)

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

        Returns an equal run's version if that one was first. Raises BalanceError, CommitConflict, or
        MissingObjects.
        """
        check_name(draft.dataset)
        draft.check()
        if bad := self.missing(draft.objects()):
            raise MissingObjects(f"{draft.dataset}: not committed, {len(bad)} objects are not there: {bad[0]}")
        # a nonce, so that a lost answer can be told from a lost slot
        made = {"commit_id": uuid.uuid4().hex, **draft.made}
        draft = draft.model_copy(update={"made": made})
        number = expected_parent if expected_parent is not None else max(self.numbers(draft.dataset), default=0)
        if expected_parent is None:  # asked after the slot was chosen: who is equal and later meets us in that slot
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
            if self.store.create(_slot(draft.dataset, number), _encode(manifest)):
                return manifest
            winner = self.manifest(draft.dataset, number)
            if winner.run_key == draft.run_key and number not in self.withdrawn(draft.dataset):
                return winner
            if expected_parent is not None and number not in self.withdrawn(draft.dataset):
                raise CommitConflict(
                    f"{draft.dataset}: expected v{expected_parent} to be the latest, but v{number} is there already"
                    f" (run {winner.run_key[:12]}). Nothing was lost: run the same command again."
                )

    def _numbered(self, draft: Draft, number: int) -> Manifest:
        previous = None
        if number > 1:
            try:
                previous = hashlib.sha256(self.store.get(_slot(draft.dataset, number - 1))).hexdigest()
            except NotFound:
                raise NoSuchVersion(self._missing(draft.dataset, f"v{number - 1}")) from None
        fields = {name: getattr(draft, name) for name in Draft.model_fields}
        return Manifest(**fields, version=number, previous=previous, digest=draft.content_digest)

    def missing(self, refs: Iterable[ObjectRef]) -> list[str]:
        """One line for every object that is not there or has another size."""

        def fault(ref: ObjectRef) -> str | None:
            info = self.store.info(ref.key)
            if info is None:
                return f"{ref.kind} {ref.sha256[:12]} is missing"
            wrong = info.size != ref.bytes
            return f"{ref.kind} {ref.sha256[:12]} has {info.size} bytes, not {ref.bytes}" if wrong else None

        different = {ref.sha256: ref for ref in refs}
        with ThreadPoolExecutor(8) as pool:
            return [text for text in pool.map(fault, different.values()) if text]

    def tags(self, name: str) -> dict[str, int]:
        prefix = f"datasets/{name}/tags/"
        keys = [info.key for info in self.store.list(prefix) if info.key.endswith(".json")]
        found = {key[len(prefix) : -len(".json")]: key for key in keys}
        return {
            tag: int(json.loads(self.store.get(key))["version"]) for tag, key in found.items() if _TAG.fullmatch(tag)
        }

    def tag(self, name: str, version: int, tag: str) -> None:
        """Gives a version a name for good. Raises FileExistsError if the tag names another version."""
        if not _TAG.fullmatch(tag):
            raise ValueError(f"tag {tag!r}: letters, digits, '.', '_', '-'; not 'latest' and not like 'v3'")
        self.manifest(name, version)
        data = json.dumps({"format": 1, "version": version}).encode()
        if not self.store.create(f"datasets/{name}/tags/{tag}.json", data):
            raise FileExistsError(f"{name}@{tag} is v{self.tags(name)[tag]} already; tags are never moved")

    def withdrawn(self, name: str) -> dict[int, str]:
        """Withdrawn versions and the reason given."""
        slots = self._slots(f"datasets/{name}/withdrawn/")
        return {number: str(json.loads(self.store.get(key))["reason"]) for number, key in slots}

    def withdraw(self, name: str, version: int, reason: str) -> None:
        """Marks a version as taken down: no root for gc, never returned by its run key. The first reason stays."""
        self.manifest(name, version)
        data = json.dumps({"format": 1, "reason": reason}).encode()
        self.store.create(f"datasets/{name}/withdrawn/{version:08d}.json", data)


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"dataset name {name!r}: lower-case letters, digits, '_', '-', parts joined by '.'")


def _encode(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=1).encode()
