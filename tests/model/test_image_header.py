"""Headers of image files: the size of what would be decoded, without decoding it."""

from __future__ import annotations

import io

import pytest
from PIL import ExifTags, Image

from gristmill.model.processing.image_file import ImageError, decode_image, image_header

LOSSLESS = ["BMP", "DIB", "GIF", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP", "DDS", "IM"]
LOSSY = ["AVIF", "JPEG"]
HEIGHT, WIDTH = 20, 33


def picture(mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB").convert(mode)


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, format, **options)
    return target.getvalue()


@pytest.mark.parametrize("format", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_a_header_is_read_without_a_pixel(format: str, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {"exif": exif} if turned and format in ("AVIF", "JPEG", "PNG", "TIFF", "WEBP") else {}
    data = file_of(picture("P" if format == "GIF" else "RGB"), format, **options)
    expected = decode_image(data).shape[:2]
    assert expected == ((WIDTH, HEIGHT) if options else (HEIGHT, WIDTH))
    for kind in (Image.Image, type(Image.open(io.BytesIO(data)))):
        monkeypatch.setattr(kind, "load", lambda self: pytest.fail("pixels are decoded"))
    header = image_header(data)
    assert (header.height, header.width) == expected


def test_an_orientation_that_stands_behind_the_pixels_of_a_png_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = file_of(picture(), "PNG", exif=exif)
    at = data.index(b"eXIf") - 4
    chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    moved = data.replace(chunk, b"").replace(b"\0\0\0\0IEND", chunk + b"\0\0\0\0IEND")
    assert decode_image(moved).shape == (WIDTH, HEIGHT, 3)
    assert (image_header(moved).height, image_header(moved).width) == (WIDTH, HEIGHT)


def test_a_format_that_is_known_and_not_read_says_which() -> None:
    with pytest.raises(ImageError, match="HEIF is not read") as caught:
        decode_image(b"\0\0\0\x18ftypheic" + bytes(20))
    assert caught.value.reason == "image.unsupported"
