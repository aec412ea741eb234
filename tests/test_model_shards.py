"""A shard is read by webdataset and by us alike, its bytes follow from its samples, and no damage is read as data."""

from __future__ import annotations

import gc
import hashlib
import io
import itertools
import json
import os
import random
import tarfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from model import handles
from model import index as index_module
from model import shards as shards_module
from model.shards import FORMAT, DamagedShard, Sample, ShardFile, ShardReader, ShardWriter

JPEG = bytes.fromhex(  # one grey pixel
    "ffd8ffdb004300030202020202030202020303030304060404040404080606050609080a0a090809090a0c0f0c0a0b0e0b09090d110d0e0f"
    "101011100a0c12131210130f101010ffc9000b080001000101011100ffcc000600101005ffda0008010100003f00d2cf20ffd9"
)
SIZES = (9, 1, 13)


def text_sample(n: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    ids = np.random.default_rng(n).integers(0, 50_000, 64).astype(np.int32)
    arrays = {"input_ids": ids, "loss_mask": ids % 3 > 0, "cu_seqlens": np.array([0, n % 64, 64], np.int32)}
    return {"n": n, "source": "wéb"}, arrays


def write_shard(folder: Path, name: str, numbers: range) -> ShardFile:
    with ShardWriter(folder / f"{name}.tar", folder / f"{name}.index") as writer:
        for n in numbers:
            writer.write(f"{name}-{n:04d}", *text_sample(n), tokens=n)
    return ShardFile(f"{name}.tar", f"{name}.index", writer.samples, writer.bytes, writer.sha256)


def write_shards(folder: Path, sizes: tuple[int, ...] = SIZES) -> list[ShardFile]:
    ends = list(itertools.accumulate(sizes, initial=0))
    return [write_shard(folder, f"s{k}", range(*ends[k : k + 2])) for k in range(len(sizes))]


def opener(folder: Path) -> Callable[[str], Any]:
    return lambda name: (folder / name).open("rb")


def numbers_of(found: Any) -> list[int]:
    return [sample.meta["n"] for _, sample in found]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    """23 samples in three shards, undamaged."""
    folder = tmp_path_factory.mktemp("shards")
    return ShardReader(write_shards(folder), opener(folder), seed=5)


# what is written


def test_webdataset_and_tarfile_read_what_we_read(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    reader = ShardReader(shards, opener(tmp_path))
    urls = [str(tmp_path / shard.tar) for shard in shards]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(theirs) == len(reader) == sum(SIZES) and reader.tokens == sum(range(23))
    assert reader.token_counts.dtype == np.int32 and reader.token_counts.tolist() == list(range(23))
    for n, found in enumerate(theirs):
        meta, arrays = text_sample(n)
        ours = reader.sample(n)
        assert found["__key__"] == ours.key and found["json"] == ours.meta == meta
        assert {name for name in found if name.endswith(".npy")} == {f"{name}.npy" for name in arrays}
        for name, array in arrays.items():
            assert found[f"{name}.npy"].dtype == ours.arrays[name].dtype == array.dtype
            assert np.array_equal(found[f"{name}.npy"], array) and np.array_equal(ours.arrays[name], array)
    with tarfile.open(urls[0]) as tar:
        names = tar.getnames()
        assert names[:4] == [f"s0-0000.{e}" for e in ("cu_seqlens.npy", "input_ids.npy", "json", "loss_mask.npy")]
        assert tar.extractfile("s0-0003.json").read() == '{"n":3,"source":"wéb"}'.encode()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in tar} == {
            (0, 0, 0, "", "", 0o444, tarfile.REGTYPE)
        }
    assert all(shard.bytes % tarfile.RECORDSIZE == 0 for shard in shards)


def test_images_and_speech_go_in_and_come_out(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float16)
    odd = {
        "log_mel": np.asfortranarray(pixels[0]),
        "big_endian": np.arange(5, dtype=">i8"),
        "every_second": np.arange(10, dtype=np.uint8)[::2],
        "scalar": np.array(2.5),
        "nothing": np.zeros((0, 4), np.float32),
        "flags": np.array([True, False]),
    }
    sound = b"RIFF" + bytes(range(256)) * 9
    with ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write("img_1", {"w": 1}, {"pixels": pixels}, {"image.jpg": JPEG, "empty": b"", "info.json": b"[1]"})
        writer.write("speech-2", {}, odd, {"flac": sound, "txt": "grüße".encode()}, tokens=7)
    shard = ShardFile("a.tar", "a.index", 2, writer.bytes, writer.sha256)
    reader = ShardReader([shard], opener(tmp_path))
    image, speech = reader.sample(0), reader.sample(1)
    assert image.files == {"image.jpg": JPEG, "empty": b"", "info.json": b"[1]"} and image.meta == {"w": 1}
    assert np.array_equal(image.arrays["pixels"], pixels) and image.arrays["pixels"].dtype == np.float16
    assert speech.files == {"flac": sound, "txt": "grüße".encode()} and speech.meta == {}
    assert speech.arrays.keys() == odd.keys() and reader.tokens == 7
    for name, array in odd.items():
        found = speech.arrays[name]
        assert found.shape == array.shape and np.array_equal(found, array)
        assert found.dtype == array.dtype.newbyteorder("<") and found.flags.c_contiguous and found.flags.writeable
    theirs = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode())
    assert theirs[0]["image.jpg"] == JPEG and np.array_equal(theirs[0]["pixels.npy"], pixels)
    assert theirs[1]["flac"] == sound and theirs[1]["txt"] == "grüße" and theirs[1]["scalar.npy"] == 2.5


def test_arrays_of_one_reading_are_its_own(reader: ShardReader) -> None:
    reader.sample(3).arrays["input_ids"][:] = -1
    assert np.array_equal(reader.sample(3).arrays["input_ids"], text_sample(3)[1]["input_ids"])


def test_the_same_samples_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = set()
    for round_, reverse in enumerate((False, True)):
        monkeypatch.setattr(time, "time", lambda now=1e9 * (round_ + 1): now)
        folder = tmp_path / f"folder{round_}"
        folder.mkdir()
        with ShardWriter(folder / f"t{round_}", folder / f"i{round_}") as writer:
            for n in range(4):
                meta, arrays = text_sample(n)
                files = {"image.jpg": JPEG, "txt": b"a"}
                given = [dict(sorted(one.items(), reverse=reverse)) for one in (meta, arrays, files)]
                writer.write(f"k{n}", *given, tokens=n)
        assert writer.sha256 == digest(folder / f"t{round_}")
        assert writer.bytes == (folder / f"t{round_}").stat().st_size
        written.add((digest(folder / f"t{round_}"), digest(folder / f"i{round_}")))
    assert len(written) == 1


def test_the_bytes_of_a_tar_are_pinned(tmp_path: Path) -> None:
    """The content digest of every dataset of shards hangs on them; another digest here needs a new FORMAT."""
    with ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write(
            "k-1", {"b": [1, 2.5, None], "a": "é"}, {"x": np.arange(6, dtype=np.int16).reshape(2, 3)}, tokens=3
        )
        writer.write("k-2", {}, {}, {"image.jpg": JPEG})
    assert (FORMAT, writer.sha256) == (1, "96d0dac236635b4c625126f63fa22a43d2cf62a8d88f263f09fac62383362119")
    file = pq.ParquetFile(tmp_path / "a.index")
    said = {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()}
    assert said.keys() == {"gristmill.format", "tar.bytes", "tar.sha256", "index.crc32"}
    assert (said["gristmill.format"], said["tar.bytes"]) == ("1", str(writer.bytes))
    assert said["tar.sha256"] == writer.sha256 == digest(tmp_path / "a.tar")
    assert file.schema_arrow.names == ["key", "offset", "length", "crc32", "tokens"]
    assert file.read(["key", "offset", "length", "tokens"]).to_pylist() == [
        {"key": "k-1", "offset": 0, "length": 2048, "tokens": 3},
        {"key": "k-2", "offset": 2048, "length": 2048, "tokens": 0},
    ]


ONE = np.zeros(1)
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("key 'a.b'", ("a.b", {}, {}), {}),
    ("key ''", ("", {}, {}), {}),
    ("key '_a'", ("_a", {}, {}), {}),
    ("key 'A'", ("A", {}, {}), {}),
    ("key 'a/b'", ("a/b", {}, {}), {}),
    ("key 'a\\\\n'", ("a\n", {}, {}), {}),
    ("key 'x{61}'", ("x" * 61, {}, {}), {}),
    ("unique", ("twice", {}, {}), {}),
    ("tokens is -1", ("k", {}, {}), {"tokens": -1}),
    ("tokens is 2147483648", ("k", {}, {}), {"tokens": 1 << 31}),
    ("not JSON", ("k", {"a": float("nan")}, {}), {}),
    ("not JSON", ("k", {"a": {1, 2}}, {}), {}),
    ("not JSON", ("k", {"a": "\ud800"}, {}), {}),
    ("array name 'a.b'", ("k", {}, {"a.b": ONE}), {}),
    ("array name '_a'", ("k", {}, {"_a": ONE}), {}),
    ("array name 'a__'", ("k", {}, {"a__": ONE}), {}),
    ("array name ''", ("k", {}, {"": ONE}), {}),
    ("of object", ("k", {}, {"a": np.array([{}, None])}), {}),
    ("of <U1", ("k", {}, {"a": np.array(["x"])}), {}),
    ("of datetime64", ("k", {}, {"a": np.zeros(1, "M8[s]")}), {}),
    ("is list", ("k", {}, {"a": [1, 2]}), {}),
    ("is MaskedArray", ("k", {}, {"a": np.ma.array([1, 2], mask=[True, False])}), {}),
    ("extension 'json'", ("k", {}, {}, {"json": b""}), {}),
    ("extension 'npy'", ("k", {}, {}, {"npy": b""}), {}),
    ("extension 'a.npy'", ("k", {}, {"a": ONE}, {"a.npy": b""}), {}),
    ("extension '.jpg'", ("k", {}, {}, {".jpg": b""}), {}),
    ("extension 'a..b'", ("k", {}, {}, {"a..b": b""}), {}),
    ("extension 'JPG'", ("k", {}, {}, {"JPG": b""}), {}),
    ("extension '_x'", ("k", {}, {}, {"_x": b""}), {}),
    ("extension 'x{37}'", ("k", {}, {}, {"x" * 37: b""}), {}),
    ("txt is str", ("k", {}, {}, {"txt": "text"}), {}),
]


@pytest.mark.parametrize(("message", "arguments", "named"), REFUSED, ids=[f"{n}" for n in range(len(REFUSED))])
def test_what_cannot_be_a_sample_is_refused_and_leaves_no_trace(
    message: str, arguments: tuple[Any, ...], named: dict[str, Any], tmp_path: Path
) -> None:
    with ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write("twice", {}, {"a": ONE})
        before = writer.bytes
        with pytest.raises(ValueError, match=message):
            writer.write(*arguments, **named)
        assert (writer.samples, writer.bytes) == (1, before)
        writer.write("k", {}, {"a": ONE})
    assert len(ShardReader([ShardFile("a.tar", "a.index", 2, writer.bytes, writer.sha256)], opener(tmp_path))) == 2


def test_the_longest_names_stay_within_one_tar_header(tmp_path: Path) -> None:
    key, extension = "k" * 60, "e" * 32 + ".jpg"
    with ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write(key, {}, {"n" * 32: ONE}, {extension: JPEG})
    found = ShardReader([ShardFile("a.tar", "a.index", 1, writer.bytes, writer.sha256)], opener(tmp_path)).sample(0)
    assert found.key == key and list(found.arrays) == ["n" * 32] and found.files == {extension: JPEG}


def test_a_block_that_fails_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError), ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write("a", {}, {})
        raise KeyError("stop")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(ShardWriter, "_write_index", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write("a", {}, {})
    assert not list(tmp_path.iterdir())


# the order


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_together_read_the_one_global_order(reader: ShardReader, world: int, ahead: int) -> None:
    ranks = [list(reader.iterate(7, rank=rank, world=world, stop=90, ahead=ahead)) for rank in range(world)]
    together = sorted((pair for one in ranks for pair in one), key=lambda pair: pair[0])
    assert [position for position, _ in together] == list(range(7, 90))
    assert numbers_of(together) == [reader.at(position) for position in range(7, 90)]
    assert all([position for position, _ in one] == list(range(7 + rank, 90, world)) for rank, one in enumerate(ranks))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12), st.sampled_from([0, 4]))))
def test_a_run_goes_on_at_any_position_with_any_number_of_ranks(
    reader: ShardReader, start: int, lives: list[tuple[int, int, int]]
) -> None:
    position, seen = start, []
    for world, steps, ahead in lives:
        for rank in range(world):
            mine = reader.iterate(position, rank=rank, world=world, ahead=ahead)
            seen += itertools.islice(mine, steps)
            mine.close()
        position += steps * world
    assert sorted(place for place, _ in seen) == list(range(start, position))
    assert all(sample.meta["n"] == reader.at(place) for place, sample in seen)


def test_an_epoch_is_a_permutation_and_others_are_others(reader: ShardReader, tmp_path: Path) -> None:
    n = len(reader)
    epochs = [[reader.at(epoch * n + k) for k in range(n)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    same, other = (ShardReader(write_shards(tmp_path), opener(tmp_path), seed=seed) for seed in (5, 6))
    assert [same.at(k) for k in range(n)] == epochs[0] != [other.at(k) for k in range(n)]
    assert [reader.at(k) for k in (3 * n, 0, 3 * n - 1)] == [epochs[3][0], epochs[0][0], epochs[2][-1]]


def test_threads_that_look_into_different_epochs_do_not_disturb_each_other(reader: ShardReader) -> None:
    places = [k * 23 + k % 23 for k in range(200)]
    want = {place: reader.at(place) for place in places}
    wrong: list[int] = []

    def look(seed: int) -> None:
        for place in random.Random(seed).choices(places, k=500):
            if reader.at(place) != want[place]:
                wrong.append(place)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_no_run_could_mean_is_refused_at_the_call(reader: ShardReader) -> None:
    for wrong in ({"position": -1}, {"rank": 1}, {"rank": -1}, {"world": 0}, {"ahead": -1}):
        with pytest.raises(ValueError, match="0 <= rank < world"):
            reader.iterate(**wrong)
    for number in (-1, 23):
        with pytest.raises(IndexError, match=f"sample {number} is not one of 0 to 22"):
            reader.sample(number)
    with pytest.raises(IndexError):
        reader.at(-1)
    assert list(reader.iterate(10, stop=10)) == list(reader.iterate(10, stop=3, ahead=2)) == []


# threads, memory, handles


def shard_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("shards")]


def test_threads_end_with_the_generator(reader: ShardReader) -> None:
    closed, dropped = reader.iterate(ahead=4), reader.iterate(ahead=4)
    next(closed), next(dropped)
    assert shard_threads()
    closed.close()
    del dropped
    gc.collect()
    assert not shard_threads()
    assert len(list(reader.iterate(stop=30, ahead=4))) == 30
    assert not shard_threads()


def test_no_more_is_read_or_held_than_asked_for(reader: ShardReader, monkeypatch: pytest.MonkeyPatch) -> None:
    read, alive, most = 0, 0, 0
    lock, honest = threading.RLock(), reader.sample

    def freed() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    def counting(number: int) -> Sample:
        nonlocal read, alive, most
        sample = honest(number)
        with lock:
            read, alive = read + 1, alive + 1
            most = max(most, alive)
        weakref.finalize(sample.arrays["input_ids"], freed)
        return sample

    monkeypatch.setattr(reader, "sample", counting)
    short = reader.iterate(ahead=6)
    next(short), next(short)
    time.sleep(0.05)
    short.close()
    assert read <= 2 + 6
    for _, sample in reader.iterate(stop=600, ahead=6):
        del sample
    assert read >= 600 and most <= 6 + 2 + shards_module.THREADS


def test_few_tars_stay_open_and_none_after_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "HANDLES", 3)
    shards, opened = write_shards(tmp_path, (2,) * 9), []

    def opening(name: str) -> Any:
        opened.append((tmp_path / name).open("rb"))
        return opened[-1]

    reader = ShardReader(shards, opening)
    for number in [*range(18), *range(18)]:
        reader.sample(number)
        assert sum(not stream.closed for stream in opened) <= 3
    before = len(opened)
    assert [reader.sample(n).meta["n"] for n in (17, 15, 13, 16, 14, 12)] == [17, 15, 13, 16, 14, 12]
    assert len(opened) == before  # the last three were at hand
    reader.close()
    assert all(stream.closed for stream in opened)
    assert reader.sample(0).meta["n"] == 0 and not opened[-1].closed
    del reader
    gc.collect()
    assert opened[-1].closed  # also of a reader that nobody closed


@pytest.mark.parametrize("kind", ["file", "unbuffered", "arrow", "memory"])
def test_any_stream_with_random_access_will_do(tmp_path: Path, kind: str) -> None:
    shards, opened = write_shards(tmp_path), []
    kinds: dict[str, Callable[[Path], Any]] = {
        "file": lambda path: path.open("rb"),
        "unbuffered": lambda path: path.open("rb", buffering=0),
        "arrow": lambda path: pa.OSFile(str(path), "rb"),
        "memory": lambda path: io.BytesIO(path.read_bytes()),
    }

    def opening(name: str) -> Any:
        opened.append(kinds[kind](tmp_path / name))
        return opened[-1]

    reader = ShardReader(shards, opening)
    assert numbers_of(reader.iterate(stop=23, ahead=5)) == [reader.at(k) for k in range(23)]
    reader.check()
    if kind != "memory":  # a fork shares the cursor of a file, so reading a sample must not go by it
        kept = [stream for stream in opened if not stream.closed]
        assert kept
        for stream in kept:
            stream.seek(17)
        for number in range(23):
            reader.sample(number)
        assert [stream.tell() for stream in kept] == [17] * len(kept)
    reader.close()


# damage


def refused(shards: list[ShardFile], folder: Path, name: str, what: str) -> None:
    with pytest.raises(DamagedShard, match=what) as found:
        ShardReader(shards, opener(folder))
    assert name in str(found.value) and "Put back" in str(found.value)


def test_a_tar_that_is_cut_short_or_missing_is_refused_by_name(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    path = tmp_path / "s1.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:-512])
    refused(shards, tmp_path, "s1.tar", f"has {len(whole) - 512} bytes")
    path.unlink()
    refused(shards, tmp_path, "s1.tar", "missing")
    path.write_bytes(whole)
    (tmp_path / "s2.index").unlink()
    refused(shards, tmp_path, "s2.tar", "missing")


def test_a_store_that_raises_key_errors_has_its_absence_understood_and_its_failures_passed_on(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)

    def opening(name: str) -> Any:
        if name == "s1.index":
            raise error
        return (tmp_path / name).open("rb")

    error: Exception = KeyError("no object")
    with pytest.raises(DamagedShard, match=r"s1\.tar.*missing"):
        ShardReader(shards, opening)
    error = TimeoutError("the network")
    with pytest.raises(TimeoutError) as found:
        ShardReader(shards, opening)
    assert any("s1.tar" in note for note in found.value.__notes__)


def test_a_stream_that_failed_is_not_used_again(tmp_path: Path) -> None:
    opened = []

    class Failing(io.BytesIO):
        fails = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.fails:
                raise ConnectionResetError("reset")
            return super().read(size)

    def opening(name: str) -> Any:
        opened.append(Failing((tmp_path / name).read_bytes()))
        return opened[-1]

    reader = ShardReader(write_shards(tmp_path, (3,)), opening)
    opened[-1].fails = True
    with pytest.raises(ConnectionResetError) as found:
        reader.sample(1)
    assert any("s0.tar" in note for note in found.value.__notes__) and opened[-1].closed
    assert reader.sample(1).meta["n"] == 1


def test_shards_that_changed_places_are_refused_by_name(tmp_path: Path) -> None:
    shards = [write_shard(tmp_path, name, range(5)) for name in ("ab", "cd")]
    assert shards[0].bytes == shards[1].bytes

    def swap(end: str) -> None:
        os.rename(tmp_path / f"ab.{end}", tmp_path / "x")
        os.rename(tmp_path / f"cd.{end}", tmp_path / f"ab.{end}")
        os.rename(tmp_path / "x", tmp_path / f"cd.{end}")

    swap("tar")
    refused(shards, tmp_path, "ab.tar", "sample 'ab-0000' at byte 0")
    swap("index")
    refused(shards, tmp_path, "ab.tar", "of another tar")  # index and tar agree, and the manifest does not
    swap("tar")
    refused(shards, tmp_path, "ab.tar", "of another tar")
    swap("index")
    assert len(ShardReader(shards, opener(tmp_path))) == 10
    refused([replace(shards[0], samples=4)], tmp_path, "ab.tar", "another tar")


@pytest.mark.parametrize("ahead", [0, 8])
def test_a_flipped_byte_is_refused_at_its_position_with_shard_key_and_offset(tmp_path: Path, ahead: int) -> None:
    shards = write_shards(tmp_path)
    offset = pq.read_table(tmp_path / "s2.index")["offset"][4].as_py()
    flip(tmp_path / "s2.tar", offset + 3000)
    reader = ShardReader(shards, opener(tmp_path), seed=5)
    at = next(k for k in range(23) if reader.at(k) == 14)
    assert 2 < at < 20  # some samples before it, some after
    seen = []
    with pytest.raises(DamagedShard, match=rf"s2\.tar .*sample 's2-0014' at byte {offset}: .*crc32"):
        for position, _ in reader.iterate(stop=23, ahead=ahead):
            seen.append(position)
    assert seen == list(range(at)) and not shard_threads()
    assert numbers_of(reader.iterate(at + 1, stop=23)) == [reader.at(k) for k in range(at + 1, 23)]
    with pytest.raises(DamagedShard, match=r"s2\.tar .*sha256"):
        reader.check()
    flip(tmp_path / "s2.tar", offset + 3000)
    reader.check()


def test_damage_between_samples_is_found_by_the_full_check(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    flip(tmp_path / "s0.tar", shards[0].bytes - 5)  # in the padding, which no sample owns
    reader = ShardReader(shards, opener(tmp_path))
    with pytest.raises(DamagedShard, match=r"s0\.tar"):
        reader.check()


def test_a_tar_cut_short_during_a_run_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    reader = ShardReader(shards, opener(tmp_path))
    os.truncate(tmp_path / "s2.tar", 5000)
    with pytest.raises(DamagedShard, match=r"s2\.tar .*sample 's2-0022' .*: 0 bytes of"):
        reader.sample(22)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShardFile]:
    folder = tmp_path_factory.mktemp("index")
    return folder, write_shard(folder, "good", range(5))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_index_is_refused_by_name_or_says_the_same(
    index: tuple[Path, ShardFile], data: st.DataObject
) -> None:
    folder, shard = index
    honest = (folder / shard.index).read_bytes()
    at, mask = data.draw(st.integers(0, len(honest) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(honest)
    changed[at] ^= mask
    if data.draw(st.integers(0, 4)) == 0:
        changed = changed[:at]
    (folder / "bad.index").write_bytes(changed)
    try:
        reader = ShardReader([replace(shard, index="bad.index")], opener(folder))
    except (DamagedShard, ValueError) as error:
        assert "bad.index" in str(error)
    else:
        assert [reader.sample(n).meta["n"] for n in range(5)] == list(range(5))
        assert reader.token_counts.tolist() == list(range(5))
        reader.close()


def rewritten(folder: Path, shard: ShardFile, metadata: dict[str, str] | None = None, **columns: Any) -> ShardFile:
    """The same shard under an index that says something else, and says so soundly."""
    table = pq.read_table(folder / shard.index)
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    said = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    said |= {"index.crc32": str(index_module._content_crc32(table)), **(metadata or {})}
    pq.write_table(table.replace_schema_metadata({k: v for k, v in said.items() if v}), folder / "other.index")
    return replace(shard, index="other.index")


def test_an_index_of_a_later_format_is_refused_with_what_to_do(index: tuple[Path, ShardFile]) -> None:
    folder, shard = index
    with pytest.raises(ValueError, match=r"good\.tar .*other\.index.*format 2.*up to 1: upgrade"):
        ShardReader([rewritten(folder, shard, {"gristmill.format": "2"})], opener(folder))
    assert len(ShardReader([rewritten(folder, shard)], opener(folder))) == 5


def test_an_index_that_does_not_fit_is_refused(index: tuple[Path, ShardFile]) -> None:
    folder, shard = index
    table = pq.read_table(folder / shard.index)
    keys, offsets = table["key"].to_pylist(), table["offset"].to_pylist()
    refused([rewritten(folder, shard, {"gristmill.format": ""})], folder, "good.tar", "cannot be read")
    refused([rewritten(folder, shard, {"tar.sha256": "0" * 64})], folder, "good.tar", "another tar")
    refused([rewritten(folder, shard, {"tar.bytes": "10240"})], folder, "good.tar", "another tar")
    refused([rewritten(folder, shard, {"index.crc32": "1"})], folder, "good.tar", "not say what was written")
    refused(
        [rewritten(folder, shard, key=["x", *keys[1:]])], folder, "good.tar", "'x' at byte 0: the tar has 'good-0000'"
    )
    exchanged = rewritten(folder, shard, key=[keys[0], keys[2], keys[1], *keys[3:]])
    reader = ShardReader([exchanged], opener(folder))
    with pytest.raises(DamagedShard, match=rf"'{keys[2]}' at byte {offsets[1]}: the tar has '{keys[1]}'"):
        reader.sample(1)
    columns = table.rename_columns(["name", *table.column_names[1:]])
    pq.write_table(columns.replace_schema_metadata(table.schema.metadata), folder / "other.index")
    refused([replace(shard, index="other.index")], folder, "good.tar", "columns")


def test_no_samples_are_refused_and_an_empty_shard_among_others_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="list of shards is empty"):
        ShardReader([], opener(tmp_path))
    first, empty, last = write_shards(tmp_path, (3, 0, 2))
    with pytest.raises(ValueError, match=r"no sample in 1 shards, the first is s1\.tar"):
        ShardReader([empty], opener(tmp_path))
    reader = ShardReader([empty, first, empty, last, empty], opener(tmp_path))
    assert [reader.sample(n).meta["n"] for n in range(len(reader))] == list(range(5))
    assert json.dumps(sorted(numbers_of(reader.iterate(5, stop=10)))) == "[0, 1, 2, 3, 4]"
