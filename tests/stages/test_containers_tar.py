"""Tar: samples as webdataset writes and groups them, media by their digests, and damage that loses no other sample."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
import webdataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from warc_files import errors, gz, plain, read_bytes, scan_bytes, tar_member, zst

from gristmill.lake.inputs.sources import open_input
from gristmill.model.processing.image_file import _formats
from gristmill.stages.containers import ReadConfig, Record, Unreadable, read
from gristmill.stages.containers.bytes.compressed import compression
from gristmill.stages.containers.media import kind_of
from gristmill.stages.containers.span_table import check_tiles
from gristmill.stages.containers.tar_cut import key_of

PNG, FLAC = b"\x89PNG\r\n\x1a\n" + bytes(40), b"fLaC" + bytes(700)
END = bytes(1024)


def written(samples: list[dict[str, object]]) -> bytes:
    stream = io.BytesIO()
    with webdataset.TarWriter(stream, encoder=False) as writer:
        for sample in samples:
            writer.write(sample)
    return stream.getvalue()


def sample(n: int) -> dict[str, object]:
    row = json.dumps({"url": f"http://a.example/{n}", "date": 2024}).encode()
    return {"__key__": f"shard/{n:03}", "png": PNG + bytes([n]), "json": row, "txt": f"caption {n}".encode()}


def rows(data: bytes, config: ReadConfig | None = None) -> list[Record | Unreadable]:
    spans = scan_bytes(data, "tar").spans
    return list(read(lambda offset: io.BytesIO(data[offset:]), spans, "tar", config or ReadConfig(), rows=True))


@pytest.mark.parametrize("pack", [plain, gz, zst])
def test_a_sample_is_a_record(pack) -> None:
    data = pack(written([sample(n) for n in range(3)]))
    items = read_bytes(data, "tar")
    assert [(item.kind, item.text, item.url, item.id, item.date) for item in items] == [
        ("text", f"caption {n}", f"http://a.example/{n}", f"shard/{n:03}", "2024") for n in range(3)
    ]
    (medium,) = items[2].media
    assert (medium.kind, medium.url, medium.data) == ("image", "shard/002.png", PNG + b"\2")
    assert medium.sha256 == hashlib.sha256(PNG + b"\2").hexdigest()
    assert rows(data)[2].row == {
        "url": "http://a.example/2", "date": 2024, "text": "caption 2", "png": 1, "id": "shard/002"
    }  # fmt: skip


def test_groups_are_those_of_webdataset(tmp_path) -> None:
    names = ["a.jpg", "a.json", "b.seg.png", "b.txt", "d/a.txt", "d.x/a.txt", "a.txt"]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in [*names, "long/" * 60 + "ü.txt"]:
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"{}"))
    groups = [
        sorted(key for key in group if not key.startswith("__"))
        for group in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    data = path.read_bytes()
    spans_of_groups = []
    for start, length in zip(
        *(scan_bytes(data, "tar").spans[name].to_pylist() for name in ("start", "length")), strict=True
    ):
        with tarfile.open(fileobj=io.BytesIO(data[start : start + length])) as archive:
            spans_of_groups.append(sorted(key_of(member.name)[1] for member in archive))
    assert spans_of_groups == groups and len(groups) == 6


def test_names() -> None:
    assert key_of("a/b.seg.PNG") == ("a/b", "seg.png")
    assert key_of("a.b/c") == ("a.b/c", "") and key_of(".hidden") == (".hidden", "")


def test_media_alone_are_a_record_and_nothing_is_lost_without_a_fate() -> None:
    data = tar_member("a.flac", FLAC) + tar_member("b.bin", b"x") + tar_member("LICENSE", b"y") + END
    items = read_bytes(data, "tar")
    assert [(item.kind, item.id, [m.kind for m in item.media]) for item in items] == [
        ("other", "a", ["audio"]), ("other", "b", []), ("other", "LICENSE", [])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "image"), (b"RIFF\0\0\0\0WEBP", "image"), (b"RIFF\0\0\0\0WAVE", "audio"),
        (b"OggS", "audio"), (b"\0\0\0\x20ftypisom", "video"), (b"\0\0\0\x20ftypavif", "image"),
        (b"GIF", None), (b"", None), (b"P6 is a road", None), (b"Python 3", None), (b"8 BPS", None),
    ],
)  # fmt: skip
def test_media_are_told_by_their_bytes(data, kind) -> None:
    assert kind_of(data) == kind


HEADS = {
    "AVIF": b"\0\0\0\x20ftypavif", "BLP": b"BLP2", "BMP": b"BM" + bytes(24), "DCX": b"\xb1\x68\xde\x3a",
    "DDS": b"DDS |\0\0\0", "FITS": b"SIMPLE  =     T", "FLI": bytes(4) + b"\x12\xaf" + bytes(10), "FTEX": b"FTEX",
    "GBR": b"\0\0\0\x20\0\0\0\x02" + bytes(12) + b"GIMP", "GIF": b"GIF89a", "JPEG": b"\xff\xd8\xff\xe0",
    "JPEG2000": b"\xff\x4f\xff\x51", "MCIDAS": bytes(7) + b"\x04", "MSP": b"LinS",
    "PCX": b"\n\x05\x01\x08", "PIXAR": b"\x80\xe8\0\0", "PNG": b"\x89PNG\r\n\x1a\n", "PPM": b"P6\n3 2\n255\n",
    "PSD": b"8BPS", "QOI": b"qoif", "SGI": b"\x01\xda\x01\x01", "SUN": b"\x59\xa6\x6a\x95", "TIFF": b"II*\0",
    "WEBP": b"RIFF\0\0\0\0WEBPVP8 ", "XPM": b"/* XPM */", "XVTHUMB": b"P7 332",
}  # fmt: skip
BY_NAME = {"DIB": ".dib", "IM": ".im", "PCD": ".pcd", "TGA": ".tga", "XBM": ".xbm"}
NEITHER = {"IMT", "SPIDER"}
"""Formats without first bytes of their own and without a usual name."""


def test_every_image_that_pillow_reads_is_known() -> None:
    assert set(_formats()) == HEADS.keys() | BY_NAME.keys() | NEITHER
    for name, head in HEADS.items():
        assert Image.OPEN[name][1](head.ljust(16, b"\0")), name
        assert kind_of(head) == "image", name
    for name, extension in BY_NAME.items():
        assert Image.EXTENSION[extension] == name
        assert kind_of(b"\x28\0\0\0", f"a{extension.upper()}") == "image"
    assert kind_of(b"", "a.tga") is None and kind_of(b"words", "a.tgz") is None


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.json", b"[1]")], "the .json member is a JSON list"),
        ([("a.json", b"{")], "the .json member is not JSON"),
        ([("a.txt", b"\xff")], "the .txt member is not UTF-8"),
        ([("a.txt", b"x"), ("a.txt", b"y")], "two members of the sample have one name"),
        ([("a.txt", b"x"), ("a.json", b'{"url": 7}')], "field 'url' is a int"),
    ],
)
def test_a_sample_at_fault_costs_itself(members, words) -> None:
    data = b"".join(tar_member(name, content) for name, content in members) + tar_member("b.txt", b"good") + END
    bad, good = read_bytes(data, "tar")
    assert isinstance(bad, Unreadable) and words in bad.error and good.text == "good"


def test_a_damaged_header_costs_the_samples_beside_it() -> None:
    parts = [tar_member(f"{n}.{extension}", b"x" * n) for n in range(5) for extension in ("a", "b")]
    parts[4] = b"\xff" + parts[4][1:]  # of 2.a
    span_errors = errors(b"".join(parts) + END, "tar")
    assert [bool(error) for error in span_errors] == [False, True, True, False, False]
    assert "no tar member starts here" in span_errors[1] and "members of this sample may be lost" in span_errors[2]


def test_an_archive_that_breaks_off_says_so_of_its_last_sample() -> None:
    whole = b"".join(tar_member(f"{n}.txt", b"x") for n in range(3))
    assert errors(whole + END, "tar") == [None] * 3
    assert errors(whole, "tar")[:2] == [None] * 2 and "breaks off without its end" in errors(whole, "tar")[2]
    assert "cut off in a member" in errors(whole[:-100], "tar")[2]
    assert errors(END, "tar") == ["no sample, only empty blocks"]


def test_archives_end_to_end_are_read_on() -> None:
    data = tar_member("a.txt", b"1") + END + tar_member("a.txt", b"2") + END
    assert [item.text for item in read_bytes(data, "tar")] == ["1", "2"]


def test_folders_and_links_belong_to_the_sample_beside_them() -> None:
    folder, link = tarfile.TarInfo("d"), tarfile.TarInfo("l")
    folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
    data = folder.tobuf() + tar_member("d/a.txt", b"x") + link.tobuf() + tar_member("d/b.txt", b"y") + END
    assert [item.text for item in read_bytes(data, "tar")] == ["x", "y"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=1200), max_size=6), st.integers(0, 6000), st.binary(max_size=600))
def test_any_bytes_in_place_of_others_keep_the_balance(contents, at, noise) -> None:
    data = b"".join(tar_member(f"{n // 2}.{n % 2}", content) for n, content in enumerate(contents)) + END
    data = data[:at] + noise + data[at + len(noise) :]
    assume(compression(data[:8]) == "none")  # noise may begin as an empty frame of zstd, with padding behind it
    spans = scan_bytes(data, "tar").spans
    check_tiles(spans, len(data))
    assert len(read_bytes(data, "tar")) == spans.num_rows
    if at >= len(data) - len(noise):  # damage at the end leaves what stands before it
        assert spans["error"][: max(0, len(contents) // 2 - 1)].null_count == max(0, len(contents) // 2 - 1)


def test_a_sample_of_any_number_of_members_is_bounded_by_its_bytes() -> None:
    data = b"".join(tar_member(f"a.{n}", bytes(2000)) for n in range(50)) + END
    (item,) = read_bytes(data, "tar", ReadConfig(max_record_bytes=100_000))
    assert isinstance(item, Unreadable) and "max_record_bytes=100000" in item.error


@pytest.mark.parametrize(("folder", "kind", "media"), [("4_images", "image", 83), ("5_audio", "audio", 52)])
def test_real_media_are_known_by_their_bytes(shared_data, folder, kind, media) -> None:
    with open_input(f"folder::{shared_data / folder}") as stream:
        data = stream.read()
    items = read_bytes(data, "tar")
    assert all(isinstance(item, Record) for item in items)
    assert sum(medium.kind == kind for item in items for medium in item.media) >= media
