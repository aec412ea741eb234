"""The Store contract, on a folder and on a real S3 store alike."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from waiting import PATIENCE

from gristmill.lake.store import s3 as store_s3
from gristmill.lake.store.base import MARKER, NotFound, Store, UnknownFormat
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.s3_connection import MissingBucket


@pytest.fixture
def store(lake_uri: str) -> Store:
    return open_store(lake_uri)


def test_a_new_lake_says_what_it_is_and_opens_again(lake_uri: str) -> None:
    first = open_store(lake_uri)
    assert json.loads(first.get(MARKER)) == {"format": 1, "lake": "gristmill"}
    assert open_store(lake_uri).uri == first.uri == lake_uri


def test_opening_without_probe_writes_nothing(lake_uri: str) -> None:
    assert list(open_store(lake_uri, probe=False).list("")) == []


@pytest.mark.parametrize("probe", [True, False])
def test_a_later_format_is_refused_with_both_numbers(lake_uri: str, probe: bool) -> None:
    open_store(lake_uri).put(MARKER, b'{"format": 7, "lake": "gristmill"}')
    with pytest.raises(UnknownFormat, match=r"format 7; this version of gristmill reads format 1"):
        open_store(lake_uri, probe=probe)


def test_somebody_elses_marker_is_refused_and_left_alone(lake_uri: str) -> None:
    store = open_store(lake_uri)
    store.put(MARKER, b"not json")
    with pytest.raises(UnknownFormat, match="not a gristmill lake"):
        open_store(lake_uri)
    assert store.get(MARKER) == b"not json"


def test_put_get_info_delete(store: Store) -> None:
    before = time.time()
    store.put("a/b/c.bin", b"first")
    store.put("a/b/c.bin", b"second, longer")
    info = store.info("a/b/c.bin")
    assert store.get("a/b/c.bin") == b"second, longer"
    assert info is not None and (info.key, info.size) == ("a/b/c.bin", 14)
    assert before - 5 < info.modified < time.time() + 5
    store.delete("a/b/c.bin")
    store.delete("a/b/c.bin")
    assert store.info("a/b/c.bin") is None


def test_empty_and_larger_objects_survive(store: Store) -> None:
    large = os.urandom(1 << 20) * 5
    for key, data in {"empty": b"", "large": large}.items():
        store.put(key, data)
        assert store.get(key) == data
        with store.open(key) as stream:
            assert stream.read() == data


def test_open_reads_at_random(store: Store) -> None:
    store.put("x", bytes(range(256)))
    with store.open("x") as stream:
        assert stream.size() == 256
        assert stream.read_at(3, 200) == bytes([200, 201, 202])
        stream.seek(10)
        assert stream.read(2) == bytes([10, 11])


@pytest.mark.parametrize("key", ["absent", "folder", "folder/file/below"])
def test_absent_is_not_found_and_names_the_key(store: Store, key: str) -> None:
    store.put("folder/file", b"x")
    for read in (store.get, store.open):
        with pytest.raises(NotFound, match=f"no object '{key}' in "):
            read(key)
    assert store.info(key) is None
    store.delete(key)
    assert store.get("folder/file") == b"x"


def test_create_is_put_if_absent(store: Store) -> None:
    assert store.create("slot/1", b"mine")
    assert not store.create("slot/1", b"theirs")
    assert store.get("slot/1") == b"mine"
    assert store.create("slot/1", b"mine"), "identical bytes are a retry of ours"
    store.delete("slot/1")
    assert store.create("slot/1", b"theirs")


def test_put_file_hands_the_file_over_and_starts_its_age(store: Store, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 9  # above boto3's multipart threshold of 8 MiB
    path = tmp_path / "shard"
    path.write_bytes(data)
    os.utime(path, (1.0, 1.0))
    store.put_file("shards/0", path)
    info = store.info("shards/0")
    assert not path.exists()
    assert store.get("shards/0") == data
    assert info is not None and info.modified > time.time() - 60


def test_listing_is_sorted_by_whole_key_and_by_prefix(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_s3, "PAGE", 3)  # several pages, so that the joins are tested as well
    keys = ["a-b", "a.b", "a/b", "a/c/d", "a0", "aa/x", "a b", "é", "z/1", "z/10", "z/2", "Z"]
    for key in keys:
        store.put(key, key.encode())
    everything = [*keys, MARKER]
    for prefix in ("", "a", "a/", "z/1", "aa", "none", "z/none/"):
        expected = sorted(key for key in everything if key.startswith(prefix))
        assert [info.key for info in store.list(prefix)] == expected
    assert [info.size for info in store.list("z/")] == [3, 4, 3]


@pytest.mark.parametrize("key", ["", "/abs", "a/../b", "..", "./a", "a//b", "a/", ".tmp/x", "a\nb", "a\x00b"])
def test_keys_that_are_not_plain_relative_paths_are_refused(store: Store, key: str) -> None:
    for verb in (store.get, store.open, store.info, store.delete):
        with pytest.raises(ValueError, match="not allowed"):
            verb(key)
    for write in (store.put, store.create):
        with pytest.raises(ValueError, match="not allowed"):
            write(key, b"")


@pytest.mark.parametrize("prefix", ["/", "../", "a/../b", ".tmp/"])
def test_prefixes_that_leave_the_lake_are_refused(store: Store, prefix: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        store.list(prefix)


def test_a_store_travels_by_pickle_as_its_address(store: Store) -> None:
    store.put("k", b"v")
    frozen = pickle.dumps(store)
    assert len(frozen) < 400
    twin = pickle.loads(frozen)
    assert twin.uri == store.uri
    assert twin.get("k") == b"v"


@pytest.mark.parametrize("error", [NotFound("s3://b/lake", "k"), MissingBucket("b")])
def test_errors_cross_processes_unchanged(error: Exception) -> None:
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin)) == (type(error), str(error))


def races(store: Store) -> int:
    """SeaweedFS lets a writer that meets another wait whole seconds (its lock polls): one race will do."""
    return 1 if store.uri.startswith("s3://") else 5


def test_of_16_threads_that_create_a_key_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        for round_ in range(races(store)):
            gate = threading.Barrier(16)

            def attempt(writer: int, key: str = f"race/{round_}", gate: threading.Barrier = gate) -> bool:
                gate.wait()
                return store.create(key, f"writer {writer}".encode())

            won = list(pool.map(attempt, range(16)))
            assert sum(won) == 1
            assert store.get(f"race/{round_}") == f"writer {won.index(True)}".encode()


def test_of_16_writers_in_4_processes_one_wins(lake_uri: str) -> None:
    store = open_store(lake_uri)
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(4)
    results = context.Queue()
    children = [context.Process(target=_race, args=(store, n, gate, results)) for n in range(4)]
    for child in children:
        child.start()
    won = sorted(writer for _ in children for writer in results.get(timeout=PATIENCE))
    for child in children:
        child.join(PATIENCE)
        assert child.exitcode == 0
    for key in range(races(store)):
        assert [w for k, w in won if k == key] == [int(store.get(f"race/{key}"))]


def _race(store: Store, process: int, gate: threading.Barrier, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    """Four threads of one process, all keys; every process starts each key together."""
    won: list[tuple[int, int]] = []
    store.info("warm-up")
    with ThreadPoolExecutor(4) as pool:
        for key in range(races(store)):
            gate.wait(PATIENCE)
            writers = range(process * 4, process * 4 + 4)
            answers = pool.map(lambda w, k=key: store.create(f"race/{k}", str(w).encode()), writers)
            won += [(key, writer) for writer, answer in zip(writers, answers, strict=True) if answer]
    results.put(won)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("lakes/web", r"is relative.*give an absolute folder \(here: /"),
        ("file://host/lake", "three slashes"),
        ("gs://bucket/lake", "scheme 'gs'; allowed are an absolute folder, file:// and s3://"),
        ("s3://", "names no bucket"),
        ("s3://bucket/a/../b", "not allowed"),
    ],
)
def test_an_address_that_cannot_be_a_lake_is_refused(uri: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        open_store(uri)


def test_file_uri_is_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my lake"
    assert open_store(f"file://{str(folder).replace(' ', '%20')}/").uri == str(folder)
    assert (folder / MARKER).is_file()
