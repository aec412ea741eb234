"""Files of images, good and hostile: pixels as the reference has them, a reason for whatever is refused."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from transformers.image_transforms import convert_to_rgb

from gristmill.model.processing import image_file
from gristmill.model.processing.image_file import ImageError, decode_image, image_header

LOSSLESS = ["BMP", "DIB", "GIF", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP", "DDS", "IM"]
LOSSY = ["AVIF", "JPEG"]
HEIGHT, WIDTH = 20, 33


def picture(mode: str = "RGB", size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    """Random colours; those of a palette, where the mode has one."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 4), np.uint8)
    image = Image.fromarray(noise, "RGBA")
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, format, **({"lossless": True} if format == "WEBP" else {}) | options)
    return target.getvalue()


def refused(data: bytes, reason: str, message: str, **limits: int) -> None:
    """The error says so, and says it in another process too."""
    with pytest.raises(ImageError, match=message) as caught:
        decode_image(data, **limits)
    assert caught.value.reason == reason
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, str(copy)) == (reason, str(caught.value))


# Pixels.


@pytest.mark.parametrize("format", LOSSLESS)
def test_a_lossless_format_gives_back_its_pixels(format: str) -> None:
    source = picture("P" if format == "GIF" else "RGB")
    data = file_of(source, format)
    header, pixels = image_header(data), decode_image(data)
    assert (header.height, header.width) == (HEIGHT, WIDTH)
    assert header.format in (format, "BMP")  # a DIB is a BMP without its first bytes
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable
    assert np.array_equal(pixels, np.asarray(source.convert("RGB")))


@pytest.mark.parametrize("format", LOSSY)
def test_a_lossy_format_is_read_as_pillow_reads_it(format: str) -> None:
    data = file_of(picture(), format)
    assert np.array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_the_colours_that_the_reference_makes_of_it(mode: str) -> None:
    data = file_of(picture(mode), {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG"))
    reference = convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True)
    assert np.array_equal(decode_image(data), reference)


def test_what_shows_through_is_white() -> None:
    clear = Image.new("RGBA", (4, 3), (200, 0, 0, 0))
    assert (decode_image(file_of(clear, "PNG")) == 255).all()
    palette = picture("P")
    pixels = decode_image(file_of(palette, "PNG", transparency=palette.getpixel((0, 0))))
    assert (pixels[0, 0] == 255).all() and not (pixels == 255).all()


def gray16(values: list[int], format: str) -> bytes:
    if format == "PPM":
        return b"P5 %d 1 65535\n" % len(values) + np.array(values, ">u2").tobytes()
    return file_of(Image.frombytes("I;16", (len(values), 1), np.array(values, "<u2").tobytes()), format)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_of_sixteen_bits_the_high_byte_counts_unless_it_is_never_used(format: str) -> None:
    wide = decode_image(gray16([0, 255, 256, 30_000, 65_535], format))
    assert wide[0].tolist() == [[n] * 3 for n in (0, 0, 1, 117, 255)]
    narrow = gray16([0, 1, 100, 255], format)  # as some scientific files are: the reference takes them for 8 bits
    assert decode_image(narrow)[0, :, 0].tolist() == [0, 1, 100, 255]
    assert np.array_equal(decode_image(narrow), np.asarray(Image.open(io.BytesIO(narrow)).convert("RGB")))


@pytest.mark.parametrize("values", [np.array([[0.0, 0.5]], np.float32), np.array([[0, 70_000]]), np.array([[-1, 5]])])
def test_numbers_without_a_known_white_are_refused(values: np.ndarray) -> None:
    image = Image.fromarray(values.astype(np.float32 if values.dtype.kind == "f" else np.int32))
    refused(file_of(image, "TIFF"), "image.unsupported", "TIFF with .* from .* to .*: which is white")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_picture_stands_upright_and_its_header_says_so(format: str) -> None:
    for orientation in range(10):  # 0 and 9 mean nothing
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        data = file_of(picture(), format, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        header = image_header(data)
        assert np.array_equal(decode_image(data), expected), orientation
        assert (header.height, header.width) == expected.shape[:2]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0" + b"\xff" * 40, b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0MM\0*" + bytes(4)]
)
def test_metadata_that_are_damaged_leave_the_picture_as_it_is(exif: bytes) -> None:
    plain = file_of(picture(), "JPEG")
    assert np.array_equal(decode_image(file_of(picture(), "JPEG", exif=exif)), decode_image(plain))
    profile = file_of(picture(), "JPEG", icc_profile=b"no profile at all" * 40_000)
    assert np.array_equal(decode_image(profile), decode_image(plain))


# Several pictures in a file.


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_is_refused_by_its_header(format: str) -> None:
    data = file_of(picture(), format, save_all=True, append_images=[picture().rotate(90)])
    refused(data, "image.animated", f"an animated {format}: a record takes its frames one by one")
    with pytest.raises(ImageError, match="animated"):
        image_header(data)


@pytest.mark.parametrize("format", ["TIFF", "MPO"])
def test_of_pages_and_thumbnails_the_first_is_the_picture(format: str) -> None:
    data = file_of(picture(), format, save_all=True, append_images=[Image.new("RGB", (5, 5))])
    assert np.array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data))))
    assert decode_image(data).shape == (HEIGHT, WIDTH, 3)


# Bounds.


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (2, 2)) -> bytes:
    """A gray picture with more chunks; its pixels are right if it is 2 x 2."""
    header = struct.pack(">IIBBBBB", size[1], size[0], 8, 0, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(6))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(b)) + t + b + struct.pack(">I", zlib.crc32(t + b)) for t, b in every]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, 2**31 - 1), (12_000, 12_000)])
def test_a_bomb_is_refused_before_anything_of_it_is_decoded(size: tuple[int, int], monkeypatch: Any) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    refused(png(size=size), "image.too_many_pixels", r"\d+")
    with pytest.raises(ImageError):
        image_header(png(size=size))


def test_a_limit_is_of_the_pixels_and_counts_them() -> None:
    data = file_of(picture(), "PNG")
    assert decode_image(data, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    refused(data, "image.too_many_pixels", "20x33 pixels of PNG: 660, allowed are 659", max_pixels=659)
    for limit in (0, 10**9):
        with pytest.raises(ValueError, match=f"max_pixels={limit}: allowed are 1 to 178956970"):
            decode_image(data, max_pixels=limit)


def tiled(side: int) -> bytes:
    """A gray TIFF of 16 x 16 pixels in one tile of `side` pixels."""
    tags = [(256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (277, 1), (322, side), (323, side), (324, 8)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (325, 256)]]
    return (
        b"II*\0"
        + struct.pack("<I", 8 + 256)
        + bytes(256)
        + struct.pack("<H", len(entries))
        + b"".join(entries)
        + bytes(4)
    )


def test_a_small_picture_in_a_huge_tile_is_as_large_as_the_tile() -> None:
    assert decode_image(tiled(16)).shape == (16, 16, 3)
    refused(tiled(9_000), "image.too_many_pixels", "a tile of TIFF: 81000000, allowed are 64000000")


def test_a_jpeg_of_a_thousand_scans_is_refused_and_one_of_ten_is_not() -> None:
    data = file_of(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert 5 < data.count(b"\xff\xda") < 20
    assert decode_image(data).shape == (HEIGHT, WIDTH, 3)
    refused(data[:last] + data[last:-2] * 1000 + data[-2:], "image.too_many_scans", r"10\d\d scans of a JPEG")


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
def test_metadata_that_unpack_to_a_hundred_times_their_size_are_not_unpacked(kind: bytes) -> None:
    assert decode_image(png((kind, b"name\0\0" + zlib.compress(bytes(1000))))).shape == (2, 2, 3)
    bomb = png((kind, b"name\0\0" + zlib.compress(bytes(50_000_000))))
    assert len(bomb) < 60_000
    tracemalloc.start()
    try:
        decode_image(bomb)
    except ImageError as error:
        assert error.reason == "image.unreadable"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_program_is_not_run_and_icons_are_not_opened(monkeypatch: Any) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("Ghostscript was asked"))
    for format in ("EPS", "ICO", "ICNS"):
        source = picture(size=(64, 64))
        refused(file_of(source, format), "image.unsupported", f"{format} is not read")


# Damage.


@pytest.mark.parametrize("format", [*LOSSLESS, *LOSSY])
def test_a_file_that_ends_early_is_refused(format: str) -> None:
    data = file_of(picture("P" if format == "GIF" else "RGB"), format)
    reasons = set()
    for end in range(0, len(data) * 3 // 4, max(1, len(data) // 40)):
        with pytest.raises(ImageError) as caught:
            decode_image(data[:end])
        reasons.add(caught.value.reason)
    assert reasons <= {"image.truncated", "image.unreadable"}
    assert ("image.truncated" in reasons) != (format == "WEBP")  # whose decoder says only that something is wrong


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*LOSSLESS, *LOSSY]), st.data())
def test_whatever_stands_in_a_file_gives_pixels_or_a_reason(format: str, draw: st.DataObject) -> None:
    data = bytearray(file_of(picture("P" if format == "GIF" else "RGB", (8, 9)), format))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        pixels = decode_image(bytes(data), max_pixels=100_000)
    except ImageError as error:
        assert error.reason.startswith("image.")
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert pixels.shape[0] * pixels.shape[1] <= 100_000


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"<!doctype html><title>404</title>", b"GIF89a", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert caught.value.reason in ("image.unreadable", "image.truncated")


def test_a_lack_of_memory_is_not_the_files_fault(monkeypatch: Any) -> None:
    def lacking(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(image_file, "_rgb", lacking)
    with pytest.raises(MemoryError):
        decode_image(file_of(picture(), "PNG"))


# Real files.

FATES = {
    "Pillow__decompression_bomb_extents.gif": "image.animated",
    "pillow__apng_blend_op_over_near_transparent.png": "image.animated",
    "pillow__broken_data_stream.png": "image.unreadable",
    "pillow__dispose_none_load_end.gif": "image.animated",
    "pillow__truncated_image.png": "image.truncated",
    "scikit-image__no_time_for_that_tiny.gif": "image.animated",
    "sharp__corrupt-header.jpg": "image.truncated",
    "sharp__rotating-squares.gif": "image.animated",
    "sharp__truncated.jpg": "image.truncated",
}


def test_real_files_are_read_as_the_reference_reads_them(shared_data: Path) -> None:
    files = sorted(path for path in (shared_data / "4_images").iterdir() if path.suffix != ".jsonl")
    fates = {}
    for path in files:
        data = path.read_bytes()
        try:
            pixels = decode_image(data)
        except ImageError as error:
            fates[path.name] = error.reason
            continue
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert (image_header(data).height, image_header(data).width) == pixels.shape[:2]
        if path.name != "pillow__16bit.cropped.tif":  # of which the reference makes plain white
            assert np.array_equal(pixels, convert_to_rgb(image, return_numpy=True)), path.name
    assert fates == FATES and len(files) - len(fates) > 60
