"""A shard is read by webdataset and by us alike, and its bytes follow from its samples."""

from __future__ import annotations

import hashlib
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from shard_files import SIZES, as_format_1, opener, text_sample, write_shards

from gristmill.model.shards.counts import Counts
from gristmill.model.shards.files import FORMAT, ShardFile, ShardReader, ShardWriter

JPEG = bytes.fromhex(  # one grey pixel
    "ffd8ffdb004300030202020202030202020303030304060404040404080606050609080a0a090809090a0c0f0c0a0b0e0b09090d110d0e0f"
    "101011100a0c12131210130f101010ffc9000b080001000101011100ffcc000600101005ffda0008010100003f00d2cf20ffd9"
)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_webdataset_and_tarfile_read_what_we_read(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    reader = ShardReader(shards, opener(tmp_path))
    urls = [str(tmp_path / shard.tar) for shard in shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == len(reader) == sum(SIZES) and reader.tokens == sum(range(23))
    assert reader.token_counts.dtype == np.int32 and reader.token_counts.tolist() == list(range(23))
    for n, sample in enumerate(samples):
        meta, arrays = text_sample(n)
        own = reader.sample(n)
        assert sample["__key__"] == own.key and sample["json"] == own.meta == meta
        assert {name for name in sample if name.endswith(".npy")} == {f"{name}.npy" for name in arrays}
        for name, array in arrays.items():
            assert sample[f"{name}.npy"].dtype == own.arrays[name].dtype == array.dtype
            assert np.array_equal(sample[f"{name}.npy"], array) and np.array_equal(own.arrays[name], array)
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
        stored = speech.arrays[name]
        assert stored.shape == array.shape and np.array_equal(stored, array)
        assert stored.dtype == array.dtype.newbyteorder("<") and stored.flags.c_contiguous and stored.flags.writeable
    samples = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode())
    assert samples[0]["image.jpg"] == JPEG and np.array_equal(samples[0]["pixels.npy"], pixels)
    assert samples[1]["flac"] == sound and samples[1]["txt"] == "grüße" and samples[1]["scalar.npy"] == 2.5


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
                given = [dict(sorted(part.items(), reverse=reverse)) for part in (meta, arrays, files)]
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
    assert (FORMAT, writer.sha256) == (2, "96d0dac236635b4c625126f63fa22a43d2cf62a8d88f263f09fac62383362119")
    file = pq.ParquetFile(tmp_path / "a.index")
    metadata = {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()}
    assert metadata.keys() == {"gristmill.format", "tar.bytes", "tar.sha256", "index.crc32"}
    assert (metadata["gristmill.format"], metadata["tar.bytes"]) == ("2", str(writer.bytes))
    assert metadata["tar.sha256"] == writer.sha256 == digest(tmp_path / "a.tar")
    assert file.schema_arrow.names == [
        *("key", "offset", "length", "crc32"),
        *("tokens", "pairs", "targets", "crops", "frames"),
    ]
    assert file.read(["key", "offset", "length", "tokens"]).to_pylist() == [
        {"key": "k-1", "offset": 0, "length": 2048, "tokens": 3},
        {"key": "k-2", "offset": 2048, "length": 2048, "tokens": 0},
    ]


def media_arrays() -> dict[str, np.ndarray]:
    """Of a window of two samples with an image of two crops and 40 frames of sound."""
    return {
        "input_ids": np.arange(7, dtype=np.int32),
        "loss_mask": np.arange(7) > 3,
        "cu_seqlens": np.array([0, 2, 7], np.int32),
        "tiles": np.zeros((2, 4, 4, 3), np.uint8),
        "image_sizes": np.array([[8, 4]], np.int32),
        "mel": np.zeros((40, 3), np.float16),
    }


def test_the_index_says_what_a_window_holds_also_of_one_that_was_copied(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write("k-1", {}, media_arrays(), tokens=7)
        writer.write("k-2", {}, {}, {"image.jpg": JPEG})
    expected = [Counts(7, 4 + 25, 3, 3, 40), Counts()]
    first = ShardFile("a.tar", "a.index", writer.samples, writer.bytes, writer.sha256)
    data = (tmp_path / "a.tar").read_bytes()
    with ShardWriter(tmp_path / "b.tar", tmp_path / "b.index") as again:
        for row in pq.read_table(tmp_path / "a.index").to_pylist():
            member = bytearray(data[row["offset"] : row["offset"] + row["length"]])
            again.copy(row["key"], member, tokens=row["tokens"])
    second = ShardFile("b.tar", "b.index", again.samples, again.bytes, again.sha256)
    assert first.sha256 == second.sha256
    for shard in (first, second):
        reader = ShardReader([shard], opener(tmp_path))
        reader._handles.close()
        reader._handles.open = None  # type: ignore[assignment]  # the index alone knows it
        assert [reader.counts(number) for number in range(2)] == expected
        assert [reader.key(number) for number in range(2)] == ["k-1", "k-2"]
    as_format_1(tmp_path / "a.index")
    reader = ShardReader([first, second], opener(tmp_path))
    assert [reader.counts(number) for number in range(4)] == expected * 2
    assert reader.tokens == 14


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
    sample = ShardReader([ShardFile("a.tar", "a.index", 1, writer.bytes, writer.sha256)], opener(tmp_path)).sample(0)
    assert sample.key == key and list(sample.arrays) == ["n" * 32] and sample.files == {extension: JPEG}


def test_a_block_that_fails_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError), ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write("a", {}, {})
        raise KeyError("stop")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(ShardWriter, "_write_index", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "a.tar", tmp_path / "a.index") as writer:
        writer.write("a", {}, {})
    assert not list(tmp_path.iterdir())
