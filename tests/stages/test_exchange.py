"""A version for other tools: what is written, that it is all of it, the same bytes again, and what does not leave."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import mixtures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from exchanges import SIZES, TEXTS, build, copied, version, written
from PIL import Image
from tar_lake import pictures as pictures_in_tars

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.stages.exchange.about import Publication
from gristmill.stages.exchange.export import CARD, CROISSANT, DONE, JOURNAL, MARKER
from gristmill.stages.exchange.files import TARGETS, Target
from gristmill.stages.exchange.tables import with_typed_media
from gristmill.stages.exchange.taken import TakenDown
from gristmill.stages.exchange.tars import table_as_tar


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("exchange"))


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Store:
    return copied(built, tmp_path)


@pytest.fixture
def documents(store: Store) -> Manifest:
    return version(store, "web@v1")


@pytest.fixture
def images(store: Store) -> Manifest:
    return version(store, "pics@v1")


@pytest.fixture
def mixed(store: Store) -> Manifest:
    return version(store, "mix@v1")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def front_matter(folder: Path) -> dict[str, Any]:
    _, matter, _ = (folder / CARD).read_text().split("---\n", 2)
    return yaml.safe_load(matter)


def in_tars(folder: Path) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for path in sorted(folder.glob("data/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                stream = tar.extractfile(member)
                assert stream is not None and member.name not in members
                members[member.name] = stream.read()
    return members


def test_tables_go_out_as_they_lie_in_the_lake(store: Store, documents: Manifest, tmp_path: Path) -> None:
    done = written(store, documents, tmp_path / "out", "parquet")
    assert (done.records, done.written, done.present) == (30, 3, 0)
    assert done.files == (*(f"data/web-0000{n}-of-00003.parquet" for n in range(3)), CARD, CROISSANT, DONE)
    for name, ref in zip(done.files, documents.shards, strict=False):
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == ref.sha256
    assert sorted(bytes_of(tmp_path / "out")) == sorted(done.files)


def test_records_go_out_as_groups_of_a_tar(store: Store, documents: Manifest, tmp_path: Path) -> None:
    assert written(store, documents, tmp_path / "out", "webdataset").records == 30
    records = [json.loads(data) for data in in_tars(tmp_path / "out").values()]
    assert [record["text"] for record in records] == TEXTS


def test_each_picture_of_a_record_is_a_file_that_its_record_names(store, images, tmp_path) -> None:
    written(store, images, tmp_path / "out", "webdataset")
    members = in_tars(tmp_path / "out")
    records = {name: json.loads(data) for name, data in members.items() if name.endswith(".json")}
    assert sum(len(record["media"]) for record in records.values()) == sum(map(len, SIZES))
    for name, record in records.items():
        for number, medium in enumerate(record["media"], 1):
            assert medium["file"] == f"image_{number}.png" and f"<|image_{number}|>" in record["text"]
            data = members[name.removesuffix("json") + medium["file"]]
            assert hashlib.sha256(data).hexdigest() == medium["sha256"]


def test_pictures_are_a_column_in_the_order_of_their_placeholders(store, images, tmp_path) -> None:
    written(store, images, tmp_path / "out", "hf")
    table = pq.read_table(tmp_path / "out" / "data")
    lake = pa.concat_tables(pq.read_table(io.BytesIO(store.get(ref.key))) for ref in images.shards)
    assert table["text"].equals(lake["text"])
    for media, files, described in zip(lake["media"], table["images"], table["media"], strict=True):
        assert [item["data"] for item in media.as_py()] == [file["bytes"] for file in files.as_py()]
        without = [{name: value for name, value in item.items() if name != "data"} for item in media.as_py()]
        assert without == described.as_py()
        assert all(Image.open(io.BytesIO(file["bytes"])).format == "PNG" for file in files.as_py())
    assert table["audio"].to_pylist() == [[]] * len(SIZES)


def test_a_record_without_media_has_none(store: Store, tmp_path: Path) -> None:
    """Beside others that have, and one whose list is null."""
    item = {"kind": "audio", "sha256": "ab", "data": b"fLaC0000"}
    rows = [{"id": "a", "media": None}, {"id": "b", "media": []}, {"id": "c", "media": [item, item]}]
    kind = pa.list_(pa.struct([("kind", pa.string()), ("sha256", pa.string()), ("data", pa.binary())]))
    table = pa.Table.from_pylist(rows, pa.schema([("id", pa.string()), ("media", kind)]))
    for order in ([0, 1, 2], [2, 1, 0]):
        ref = put_table(store, "shard", table.take(order))
        assert with_typed_media(store, ref, tmp_path / "out.parquet") == 3
        out = pq.read_table(tmp_path / "out.parquet")
        counts = {row["id"]: len(row["audio"]) for row in out.to_pylist()}
        assert counts == {"a": 0, "b": 0, "c": 2}
        assert out["images"].to_pylist() == [[], [], []]
    strange = pa.Table.from_pylist([{"id": "a", "media": [{**item, "kind": "film"}]}], table.schema)
    with pytest.raises(ValueError, match="media of kind film"):
        with_typed_media(store, put_table(store, "shard", strange), tmp_path / "out.parquet")


def test_windows_are_rows_with_their_arrays(store: Store, mixed: Manifest, tmp_path: Path) -> None:
    reader = mixtures.read_windows(store, mixed)
    for target in ("parquet", "hf"):
        assert written(store, mixed, tmp_path / target, target).records == len(reader)
        rows = pq.read_table(tmp_path / target / "data").to_pylist()
        for number, row in enumerate(rows):
            sample = reader.sample(number)
            assert (row["key"], json.loads(row["json"])) == (sample.key, sample.meta)
            for name, array in sample.arrays.items():
                assert row[name] == array.reshape(-1).tolist()
                if array.ndim > 1:
                    assert row[f"{name}_shape"] == list(array.shape)
    tars = [ref for ref in mixed.shards if ref.kind == "pack"]
    done = written(store, mixed, tmp_path / "tars", "webdataset")
    for name, ref in zip(done.files, tars, strict=False):
        assert hashlib.sha256((tmp_path / "tars" / name).read_bytes()).hexdigest() == ref.sha256


def test_groups_of_files_are_rows_with_files(store: Store, tmp_path: Path) -> None:
    manifest = pictures_in_tars(store, [["a"], ["b"]], [["c"]])
    assert written(store, manifest, tmp_path / "out", "parquet").records == 3
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert [[file["name"] for file in row["files"]] for row in rows] == [["image.jpg"]] * 3


def test_what_holds_no_records_is_not_exported(store: Store, documents: Manifest, tmp_path: Path) -> None:
    bpe = version(store, "bpe@v1")
    with pytest.raises(ValueError, match=r"bpe@v1 holds no records, but a tokenizer.*grist checkout"):
        written(store, bpe, tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_version_is_the_same_bytes(store: Store, images: Manifest, tmp_path: Path, target: Target) -> None:
    first, second = (written(store, images, tmp_path / name, target) for name in "ab")
    assert first.files == second.files
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


@pytest.mark.parametrize("target", TARGETS)
def test_a_killed_export_goes_on(store: Store, documents: Manifest, tmp_path: Path, target: Target) -> None:
    manifest = documents
    written(store, manifest, tmp_path / "whole", target)

    def die(name: str) -> None:
        if "00001" in name:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        written(store, manifest, out, target, progress=die)
    assert (out / MARKER).exists() and not (out / DONE).exists()
    with (out / JOURNAL).open("ab") as journal:
        journal.write(b'{"name": "data/we')  # the kill came while a line was written
    done = written(store, manifest, out, target)
    assert (done.written, done.present) == (1, 2)
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    again = written(store, manifest, out, target)
    assert (again.written, again.present) == (0, 3)
    (out / done.files[1]).unlink()
    assert written(store, manifest, out, target).written == 1
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_other_peoples_folders_and_changed_files_are_left_alone(store, documents, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "grist.json").write_text("[]")
    with pytest.raises(FileExistsError, match="is not empty"):
        written(store, documents, tmp_path / "notes", "parquet")
    out = tmp_path / "out"
    done = written(store, documents, out, "parquet")
    with pytest.raises(FileExistsError, match="holds web@v1 as parquet, not web@v1 as webdataset"):
        written(store, documents, out, "webdataset")
    (out / done.files[0]).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="is not as it was exported"):
        written(store, documents, out, "parquet")
    assert (out / done.files[0]).read_bytes() == b"mine"


def test_a_licence_may_come_later_and_a_card_that_somebody_changed_stays(store, documents, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(store, documents, out, "parquet")
    assert written(store, documents, out, "parquet", published=Publication("mit")).written == 0
    assert front_matter(out)["license"] == "mit" and json.loads((out / CROISSANT).read_text())["license"] == "mit"
    card = (out / CARD).read_text() + "\nMind the gaps.\n"
    (out / CARD).write_text(card)
    for licence in ("odc-by", "mit"):
        written(store, documents, out, "parquet", published=Publication(licence))
        assert (out / CARD).read_text() == card and json.loads((out / CROISSANT).read_text())["license"] == licence


def test_a_version_that_was_withdrawn_is_refused(store: Store, documents: Manifest, tmp_path: Path) -> None:
    Versions(store).withdraw("web", 1, "wrong source")
    with pytest.raises(NoSuchVersion, match=r"withdrawn \(wrong source\)"):
        written(store, documents, tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()


def requests_for(store: Store, manifest: Manifest) -> list[Suppression]:
    """Of one record, by each way to name it."""
    row = pq.read_table(io.BytesIO(store.get(manifest.shards[0].key))).slice(0, 1).to_pylist()[0]
    asked = [Suppression.of(ids=[row["id"]])]
    if row.get("media"):
        return [*asked, Suppression.of(media=[row["media"][0]["sha256"]])]
    return [*asked, Suppression.of(urls=[row["url"]]), Suppression.of(domains=["web.example"])]


@pytest.mark.parametrize("number", range(3))
def test_what_was_taken_down_does_not_leave(store, documents, mixed, tmp_path: Path, number: int) -> None:
    """The takedown was broken off before it withdrew anything."""
    requests_for(store, documents)[number].save(store, "asked")
    for manifest, target in ((documents, "parquet"), (documents, "hf"), (documents, "webdataset"), (mixed, "parquet")):
        with pytest.raises(TakenDown, match=rf"{manifest} holds \d+ records that were taken down"):
            written(store, manifest, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", range(2))
def test_a_picture_that_was_taken_down_does_not_leave(store, images, mixed, tmp_path: Path, number: int) -> None:
    requests_for(store, images)[number].save(store, "asked")
    for manifest in (images, mixed):
        with pytest.raises(TakenDown, match="holds 1 records"):
            written(store, manifest, tmp_path / "out", "webdataset")


def test_what_is_taken_down_meanwhile_ends_the_export(store: Store, documents: Manifest, tmp_path: Path) -> None:
    ask = requests_for(store, documents)[0]
    with pytest.raises(TakenDown):
        written(store, documents, tmp_path / "out", "parquet", progress=lambda name: ask.save(store, "asked"))
    assert not (tmp_path / "out" / DONE).exists()
    elsewhere = Suppression.of(ids=["f" * 32])
    other = mixtures.documents(store, "other", mixtures.texts(4, seed=1))
    with pytest.raises(FileExistsError, match="run the same command again"):
        written(store, other, tmp_path / "o", "parquet", progress=lambda name: elsewhere.save(store, "asked"))
    assert written(store, other, tmp_path / "o", "parquet").present == 1


def test_a_large_shard_is_written_row_group_by_row_group(store: Store, tmp_path: Path) -> None:
    """No more is held than a row group has: what pyarrow holds at most is far below the shard."""
    item = {"kind": "image", "sha256": "ab", "data": b"\xff\xd8\xff" + bytes(1 << 20)}
    kind = pa.list_(pa.struct([("kind", pa.string()), ("sha256", pa.string()), ("data", pa.binary())]))
    schema = pa.schema([("id", pa.string()), ("media", kind)])
    groups = [pa.Table.from_pylist([{"id": str(n), "media": [item]}], schema) for n in range(64)]
    ref = put_table(store, "shard", pa.concat_tables(groups), groups=groups)
    for write in (
        lambda: with_typed_media(store, ref, tmp_path / "out.parquet"),
        lambda: table_as_tar(store, ref, 0, tmp_path / "out.tar"),
    ):
        pool = pa.proxy_memory_pool(pa.default_memory_pool())
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        try:
            assert write() == 64
        finally:
            pa.set_memory_pool(before)
        assert pool.max_memory() < 24 << 20


def test_clips_are_a_column(store: Store, tmp_path: Path) -> None:
    written(store, version(store, "speech@v1"), tmp_path / "out", "hf")
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert sorted(row["audio"][0]["path"].rpartition(".")[2] for row in rows) == ["flac", "wav"]
