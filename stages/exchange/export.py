"""`grist export dataset`: a version as a folder that is whole or says that it is not.

Each data file is written beside its place, renamed, and then noted with its sha256 in a journal; a killed export goes
on behind what is noted there and still has that digest. Card and Croissant metadata follow, `grist.json` comes last and
says that all is there. What was taken down is asked for before the first byte and again before that last file. The same
version gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gristmill.lake.query.checkout import half_of, write_whole
from gristmill.lake.query.query import lineage, resolve_usable
from gristmill.lake.store.objects import file_sha256
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.stages.exchange.about import About, DataFile, Publication
from gristmill.stages.exchange.card import card
from gristmill.stages.exchange.croissant import NAME as CROISSANT
from gristmill.stages.exchange.croissant import encoded
from gristmill.stages.exchange.files import TARGETS, Part, Target, parts_of
from gristmill.stages.exchange.taken import check_free

CARD, DONE = "README.md", "grist.json"
MARKER, JOURNAL = ".grist-export.json", ".grist-export.jsonl"
FORMAT = 1


@dataclass(frozen=True)
class Export:
    """What is in the folder now. `written`, `present`: data files made by this call, and there before and whole."""

    version: str
    target: Target
    directory: str
    records: int
    bytes: int
    files: tuple[str, ...]
    written: int
    present: int


def export(
    versions: Versions,
    ref: str,
    directory: Path,
    target: Target,
    published: Publication | None = None,
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Writes the version to `directory`: data/, README.md, croissant.json, grist.json. `progress` is told each name.

    Raises NoSuchVersion, for a version that was withdrawn too; TakenDown; ValueError for a version without records;
    FileExistsError for a folder with other things in it, or with a file that was changed; DamagedObject, NotFound.
    """
    if target not in TARGETS:
        raise ValueError(f"--as {target}: allowed are {', '.join(TARGETS)}")
    manifest = resolve_usable(versions, ref)
    parts = parts_of(versions.store, manifest, target)
    listed = check_free(versions, manifest)
    folder = _Folder(directory, manifest, target, published or Publication())
    files, written = list[DataFile](), 0
    for part in parts:
        file = folder.noted(part)
        if file is None:
            file = folder.write(part)
            written += 1
            if progress is not None:
                progress(file.name)
        files.append(file)
    _check_count(manifest, files)
    if check_free(versions, manifest) != listed:
        raise FileExistsError(
            f"something was taken down while {manifest} was exported: {directory} is not said to be whole; run the same"
            " command again"
        )
    about = About(manifest, target, files, folder.schema(files), lineage(versions, str(manifest)), folder.published)
    folder.finish(about)
    names = (*(file.name for file in files), CARD, CROISSANT, DONE)
    counts = {"written": written, "present": len(files) - written}
    return Export(str(manifest), target, str(directory), about.records, about.bytes, names, **counts)


def _check_count(manifest: Manifest, files: list[DataFile]) -> None:
    """Raises ValueError unless every record of the shards is in the files, and no other."""
    written, there = sum(file.records for file in files), sum(ref.records for ref in _shards(manifest))
    kept = manifest.kept.count if manifest.layout.one_each else there
    if written != there or written != kept:
        raise ValueError(f"{manifest}: {written:,} records were written of {there:,} in shards, {kept:,} kept")


def _shards(manifest: Manifest) -> Iterator[Any]:
    return (ref for ref in manifest.shards if manifest.layout.holds(ref.kind) in ("rows", "groups"))


class _Folder:
    """Where an export is written to, and what is known of its files."""

    def __init__(self, folder: Path, manifest: Manifest, target: Target, published: Publication) -> None:
        self.folder, self.manifest, self.target, self.published = folder, manifest, target, published
        about = {"format": FORMAT, "dataset": manifest.dataset, "version": manifest.version, "digest": manifest.digest}
        self._identity: dict[str, Any] = {**about, "as": target}
        self._claim()
        self._noted = {file.name: file for file in self._journal()}

    def _claim(self) -> None:
        """Raises FileExistsError where the folder holds anything but this export, whole or begun."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (MARKER, DONE):
            owner = _read_json(self.folder / name)
            if owner is None:
                continue
            if {key: owner.get(key) for key in self._identity} == self._identity:
                return
            if owner.keys() >= {"dataset", "version", "as"}:
                whose = f"{owner['dataset']}@v{owner['version']} as {owner['as']}"
                if whose == f"{self.manifest} as {self.target}":
                    whose += " of another lake"
                raise FileExistsError(
                    f"{self.folder} holds {whose}, not {self.manifest} as {self.target}: give another folder"
                )
        here = sorted(path.name for path in self.folder.iterdir() if path.name != half_of(self.folder / MARKER).name)
        if here:
            raise FileExistsError(f"{self.folder} is not empty ({', '.join(here[:3])}): give a new or an empty folder")
        write_whole(self.folder / MARKER, json.dumps(self._identity).encode())

    def _journal(self) -> Iterator[DataFile]:
        """The files that were written whole."""
        done = _read_json(self.folder / DONE)
        if done is not None:
            yield from (DataFile(**file) for file in done["files"])
            return
        try:
            lines = (self.folder / JOURNAL).read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines[:-1]:  # behind the last end of a line is what a kill cut off
            yield DataFile(**json.loads(line))

    def noted(self, part: Part) -> DataFile | None:
        """The file, if it was written and is as it was. Raises FileExistsError for one that was changed."""
        file, path = self._noted.get(part.name), self.folder / part.name
        if file is None or not path.exists():
            return None
        if (sha256 := file_sha256(path)) != file.sha256:
            raise FileExistsError(
                f"{path} is not as it was exported (sha256 {sha256[:12]}, expected {file.sha256[:12]}): move it away,"
                " and run the same command again"
            )
        return file

    def write(self, part: Part) -> DataFile:
        """Makes the file and notes it."""
        path = self.folder / part.name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = half_of(path)
        records = part.write(half)
        with half.open("rb+") as stream:
            os.fsync(stream.fileno())
        file = DataFile(part.name, file_sha256(half), half.stat().st_size, records)
        os.replace(half, path)
        if not (self.folder / DONE).exists():  # there it is noted already, with this digest
            with (self.folder / JOURNAL).open("ab") as journal:
                journal.write(json.dumps(asdict(file)).encode() + b"\n")
                journal.flush()
                os.fsync(journal.fileno())
        return file

    def schema(self, files: list[DataFile]) -> Any:
        """Of the tables; None for tars, or where there is no file."""
        if self.target == "webdataset" or not files:
            return None
        return pq.read_schema(self.folder / files[0].name)

    def finish(self, about: About) -> None:
        """Writes card and metadata, and what says that all is there; then takes the traces of the work away. A card
        that was changed since it was written stays as it is: that is what cards are for."""
        text = card(about).encode()
        known = (_read_json(self.folder / DONE) or {}).get("card")
        page = self.folder / CARD
        if known is None or not page.exists() or known == file_sha256(page):  # else somebody wrote in it
            write_whole(page, text)
        write_whole(self.folder / CROISSANT, encoded(about))
        files = [asdict(file) for file in about.files]
        done = {**self._identity, "records": about.records, "card": hashlib.sha256(text).hexdigest(), "files": files}
        sources = [{"version": str(ref), "digest": ref.digest, "role": ref.role} for ref in about.manifest.sources]
        write_whole(self.folder / DONE, json.dumps({**done, "sources": sources}, indent=1).encode() + b"\n")
        for name in (MARKER, JOURNAL):
            (self.folder / name).unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    """What this file holds; None where it is not there or is none of ours."""
    try:
        fields = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return fields if isinstance(fields, dict) else None
