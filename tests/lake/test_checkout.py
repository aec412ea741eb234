"""`checkout`: whole files or none, resumable, and never over somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from lake_builder import commit, mixed_pages, pages

from gristmill.lake.query.checkout import MARKER, Damaged, checkout
from gristmill.lake.store import objects
from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest


@pytest.fixture
def first(store: Store) -> Manifest:
    return commit(store, "web", mixed_pages())


def test_checkout_writes_whole_files_and_is_idempotent(store: Store, first: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = checkout(store, first, out)
    assert (done.files, done.written, done.found) == (("web-00000.parquet", "web-00001.parquet"), 2, 0)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", *done.files]
    for name, ref in zip(done.files, first.shards, strict=True):
        assert objects.file_sha256(out / name) == ref.sha256
    assert Manifest.model_validate_json((out / "manifest.json").read_bytes()) == first
    assert checkout(store, first, out).found == 2


def test_checkout_goes_on_after_a_kill(store: Store, first: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def die(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkout(store, first, out, progress=die)
    assert sorted(p.name for p in out.iterdir()) == [MARKER, "web-00000.parquet"]
    (out / ".web-00001.parquet.part").write_bytes(b"half")
    done = checkout(store, first, out)
    assert (done.written, done.found) == (1, 1)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", *done.files]


def test_checkout_never_hands_out_damaged_bytes(store: Store, first: Manifest, tmp_path: Path) -> None:
    ref = first.shards[1]
    data = bytearray(store.get(ref.key))
    data[len(data) // 2] ^= 1
    store.put(ref.key, bytes(data))
    with pytest.raises(Damaged, match=ref.sha256):
        checkout(store, first, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MARKER, "web-00000.parquet"]


def test_checkout_leaves_other_peoples_folders_alone(store: Store, first: Manifest, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "manifest.json").write_text("[]")
    with pytest.raises(FileExistsError, match="is not empty"):
        checkout(store, first, tmp_path / "notes")
    checkout(store, first, tmp_path / "out")
    second = commit(store, "web", pages(4), recipe={"x": 1})
    with pytest.raises(FileExistsError, match="holds web@v1, not web@v2"):
        checkout(store, second, tmp_path / "out")
    (tmp_path / "out" / "web-00000.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="is not as it was checked out"):
        checkout(store, first, tmp_path / "out")
