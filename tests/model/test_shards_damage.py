"""No damage of a shard is read as data: it is refused, by name."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import numbers_of, opener, shard_threads, write_shard, write_shards

from gristmill.model.shards import index as index_module
from gristmill.model.shards.files import DamagedShard, ShardFile, ShardReader


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def refused(shards: list[ShardFile], folder: Path, name: str, what: str) -> None:
    with pytest.raises(DamagedShard, match=what) as error:
        ShardReader(shards, opener(folder))
    assert name in str(error.value) and "Put back" in str(error.value)


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
    with pytest.raises(TimeoutError) as raised:
        ShardReader(shards, opening)
    assert any("s1.tar" in note for note in raised.value.__notes__)


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
    with pytest.raises(ConnectionResetError) as error:
        reader.sample(1)
    assert any("s0.tar" in note for note in error.value.__notes__) and opened[-1].closed
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


@settings(max_examples=150)
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
    declared = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    declared |= {"index.crc32": str(index_module._content_crc32(table)), **(metadata or {})}
    pq.write_table(table.replace_schema_metadata({k: v for k, v in declared.items() if v}), folder / "other.index")
    return replace(shard, index="other.index")


def test_an_index_of_a_later_format_is_refused_with_what_to_do(index: tuple[Path, ShardFile]) -> None:
    folder, shard = index
    with pytest.raises(ValueError, match=r"good\.tar .*other\.index.*format 3.*up to 2: upgrade"):
        ShardReader([rewritten(folder, shard, {"gristmill.format": "3"})], opener(folder))
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
