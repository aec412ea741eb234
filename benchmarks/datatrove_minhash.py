"""datatrove's MinHash deduplication, its four stages as they are, run one after another in this process.

No executor, which flatters it: no logs, no statistics on disk, no completion markers. Documents come from memory, and
nothing is written but what its stages write for each other: signatures, pairs (`.dups`) and lists of numbers to remove.
Settings are its defaults (`lines_to_buffer` of 1000 for 5 was tried and made no difference). `write_signatures` makes
the files of its first stage from given signatures, so that later stages can start from the same as others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datatrove
import numpy as np
from datatrove.data import Document
from datatrove.utils.hashing import HashConfig
from datatrove.utils.logging import logger

GIVEN = HashConfig(precision=32)  # of signatures that are not its own


def _module() -> Any:
    """The module by its file: its package imports `tokenizers`, which only other modules of it need."""
    path = Path(datatrove.__file__).parent / "pipeline" / "dedup" / "minhash.py"
    spec = importlib.util.spec_from_file_location("datatrove_minhash", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


minhash = sys.modules.get("datatrove_minhash") or _module()


class Kept(NamedTuple):
    """`kept`: numbers of the documents, counted through all shards."""

    kept: list[int]
    folder: Path


def signer(folder: Path) -> Any:
    """Its first stage as an object, whose steps can be called one by one."""
    return minhash.MinhashDedupSignature(str(folder))


def documents(texts: Sequence[str], per_shard: int) -> list[list[Document]]:
    """A shard is what one of its tasks reads."""
    numbered = [Document(text=text, id=str(n)) for n, text in enumerate(texts)]
    return [numbered[i : i + per_shard] for i in range(0, len(numbered), per_shard)]


def config(hashes: HashConfig | None = None, bands: int = 14, rows: int = 8) -> Any:
    """Its settings, with 64-bit hashes where none are given."""
    return minhash.MinhashConfig(num_buckets=bands, hashes_per_bucket=rows, hash_config=hashes or HashConfig())


def sign(shards: Sequence[Sequence[Document]], folder: Path) -> None:
    """Its first stage, a task a shard: text to sorted files of signatures."""
    with _quiet():
        stage = minhash.MinhashDedupSignature(str(folder / "signatures"), config())
        for rank, shard in enumerate(shards):
            stage.run(iter(shard), rank, len(shards))


def write_signatures(values: np.ndarray, per_shard: int, folder: Path, bands: int, rows: int) -> None:
    """The files of its first stage: uint32 [documents, bands * rows], records sorted by hashes, then number."""
    record = np.dtype([("hashes", "<u4", (rows,)), ("number", "<u4")])
    for rank, first in enumerate(range(0, len(values), per_shard)):
        shard = values[first : first + per_shard].reshape(-1, bands, rows)
        for band in range(bands):
            place = folder / "signatures" / f"bucket_{band:03d}"
            place.mkdir(parents=True, exist_ok=True)
            hashes = shard[:, band]
            order = np.lexsort((np.arange(len(hashes)), *hashes.T[::-1]))
            records = np.empty(len(hashes), record)
            records["hashes"], records["number"] = hashes[order], order
            records.tofile(place / f"{rank:05d}.minhash.sig")


def deduplicate(shards: Sequence[Sequence[Document]], folder: Path, hashes: HashConfig | None = None) -> Kept:
    """Its stages 2 to 4 on the signatures in `folder`: pairs, clusters, and the documents that stay."""
    bands = len(list((folder / "signatures").iterdir()))
    settings = config(hashes, bands)
    with _quiet():
        pairs = minhash.MinhashDedupBuckets(str(folder / "signatures"), str(folder / "pairs"), config=settings)
        for rank in range(bands):
            pairs.run(None, rank, bands)
        cluster(folder, folder / "remove", settings)
        stay = minhash.MinhashDedupFilter(str(folder / "remove"))
        left = [stay.run(iter(shard), rank, len(shards)) for rank, shard in enumerate(shards)]
        return Kept([int(document.id) for shard in left for document in shard], folder)


def cluster(folder: Path, output: Path, settings: Any, **options: bool) -> None:
    """Its third stage: from pairs in `folder` to the numbers to remove."""
    minhash.MinhashDedupCluster(str(folder / "pairs"), str(output), config=settings, **options).run()


def clusters(done: Kept, per_shard: int) -> list[list[int]]:
    """The clusters of more than one, sorted: its third stage once more, told to write them. Never timed."""
    with _quiet():
        cluster(done.folder, done.folder / "written", minhash.MinhashConfig(), save_cluster_id=True)
    members: dict[int, list[int]] = {}
    for file in (done.folder / "written").glob("*.clusters"):
        for number, name in np.fromfile(file, "<u4").reshape(-1, 2).tolist():
            members.setdefault(name, []).append(number + int(file.stem) * per_shard)
    return sorted(sorted(component) for component in members.values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without its log and its progress bars."""
    logger.disable("datatrove_minhash")
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.enable("datatrove_minhash")
