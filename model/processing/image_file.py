"""Bytes of an image file, from whoever it may be, to pixels: uint8 [height, width, 3], upright, alpha on white.

Pillow reads; here stand the bounds. What a file costs is known from its header, before a pixel is decoded: its pixels
(`max_pixels`; at the peak they take 5 to 20 bytes each, by format) and, of a JPEG, its scans, each of which passes over
the whole picture. An error has one type and a reason of a few letters, so that a record has a fate. Colour profiles and
other metadata are not applied, as in the reference; an orientation that cannot be read is none.
Source: transformers 5.23, `image_transforms.convert_to_rgb`.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from gristmill.model.processing.medium_error import MediumError

MAX_PIXELS = 64_000_000
"""What a file may have by default: 1.3 GB at the peak."""
MOST_PIXELS = 2 * MAX_PIXELS
"""What a recipe may allow at most: within it every image that a lake took in is decoded."""
MAX_SCANS = 500
"""Of a JPEG: encoders make about 10, a file that is made to be slow makes as many as its bytes allow."""
SEVERAL = frozenset({"AVIF", "FLI", "GIF", "PNG", "WEBP"})
"""Formats whose frames are moments of one animation. Those of others are pages, layers or thumbnails: the first is the
picture."""
REFUSED = frozenset(
    {
        "EPS",  # is a program, and Pillow starts another to run it
        "WMF",  # is drawn by Windows
        "CUR", "ICNS", "ICO", "IPTC",  # hold files of other formats, which say their size only when they are decoded
        "BUFR", "GRIB", "HDF5", "MPEG",  # are recognised by Pillow, and not read
        "FPX", "MIC",  # need packages beside it
    }
)  # fmt: skip
ENDS_EARLY = ("truncated", "not enough image data", "incomplete header", "expected to read", "eoferror")
"""What Pillow's errors say of a file that is cut off. Not all its decoders know it (that of WebP)."""
ROWS = 64
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes an orientation of EXIF."""

# Foreign files warn of themselves: each in other words, without an end. What counts of it is an error below.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(MediumError):
    """An image that cannot be had. `reason`: `image.` and one of the words below; the message says which value.

    too_many_pixels, too_many_scans: beyond a limit. animated: of several moments. truncated: the file ends early.
    unsupported: a format or a type of pixels that is not read. unreadable: all else that is wrong with a file.
    """

    kind, noun = "image", "image"


@dataclass(frozen=True)
class Header:
    """What a file says of itself. `format`: Pillow's name of it; `height` and `width` in pixels, upright."""

    format: str
    height: int
    width: int


def image_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Size and format of an image file; no pixel is decoded. Raises ImageError as `decode_image`, for what a header
    shows."""
    with _opened(data, max_pixels) as image:
        width, height = image.size
        turn = _orientation(image) if image.format != "PNG" else _orientation_of_png(data)
        if turn >= 5 and image.format != "TIFF":  # whose size Pillow has turned already
            width, height = height, width
        return Header(str(image.format), height, width)


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Pixels of an image file, uint8 [height, width, 3]: red, green, blue. Of 16 bits it is the high byte that counts.

    Raises ImageError; ValueError for a `max_pixels` that Pillow does not allow.
    """
    with _opened(data, max_pixels) as image:
        image.load()
        turn = UPRIGHT.get(_orientation(image))  # a TIFF is turned by Pillow while it loads, and then has none
        picture = image if turn is None else image.transpose(turn)
        return _rgb(picture, str(image.format))


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """An image within its limits, whose pixels are not decoded yet; errors of Pillow in the block as ImageError."""
    _check_limit(max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            _check_cost(image, data, max_pixels)
            yield image
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        if name := _refused(data):
            raise ImageError("unsupported", f"{name} is not read") from None
        raise ImageError("unreadable", "no format of images is known that begins as this one does") from None
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except Exception as error:  # a parser of foreign bytes: Pillow's raise whatever they stumble on
        text = f"{type(error).__name__}: {error}"
        ends_early = any(words in text.lower() for words in ENDS_EARLY)
        raise ImageError("truncated" if ends_early else "unreadable", text) from error


def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in REFUSED)


def _refused(data: bytes) -> str | None:
    """The format that a file has which is known and not read; None: it is none of these."""
    if re.match(rb".{4}ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", data[:12], re.DOTALL):
        return "HEIF"
    for name in sorted(REFUSED & Image.OPEN.keys()):
        accept = Image.OPEN[name][1]
        if accept is not None and accept(data[:16]):
            return name
    return None


def _check_limit(max_pixels: int) -> None:
    most = 2 * (Image.MAX_IMAGE_PIXELS or max_pixels)
    if not 1 <= max_pixels <= most:
        raise ValueError(f"max_pixels={max_pixels}: allowed are 1 to {most}, beyond which Pillow opens no image")


def _check_cost(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Raises ImageError where decoding would cost more than it may, or gives more than one picture."""
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(ExifTags.Base.TileWidth, 0)) * int(tags.get(ExifTags.Base.TileLength, 0))
    for what, pixels in ((f"{image.height}x{image.width} pixels", image.height * image.width), ("a tile", tile)):
        if pixels > max_pixels:
            raise ImageError("too_many_pixels", f"{what} of {image.format}: {pixels}, allowed are {max_pixels}")
    # Within a scan FF is never followed by DA: these are the scans, and those of thumbnails.
    if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageError("too_many_scans", f"{scans} scans of a JPEG, allowed are {MAX_SCANS}")
    if image.format in SEVERAL and getattr(image, "is_animated", False):
        raise ImageError("animated", f"an animated {image.format}: a record takes its frames one by one")


def _orientation(image: Image.Image) -> int:
    """Of EXIF, 1 to 8; 1, upright, where nothing of the kind can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # metadata of a picture that may be good: it counts as not there
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _orientation_of_png(data: bytes) -> int:
    """The same, of a PNG. It may stand behind the pixels, and Pillow decodes them to get there: here they are cut out,
    and what is left, a picture without any, is asked."""
    kept, at = [data[:8]], 8
    while len(head := data[at : at + 8]) == 8:
        end = at + 12 + int.from_bytes(head[:4], "big")
        if head[4:] not in (b"IDAT", b"fdAT"):
            kept.append(data[at:end])
        at = end
    try:
        with Image.open(io.BytesIO(b"".join(kept)), formats=("PNG",)) as image:
            value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # as above
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image, format: str) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        return np.repeat(_eight_bits(np.asarray(image), format)[:, :, None], 3, axis=2)
    pixels_HWC = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, ROWS):  # of what Pillow makes on the way, no more than a strip exists
        strip = image.crop((0, top, image.width, min(top + ROWS, image.height)))
        pixels_HWC[top : top + ROWS] = np.asarray(_on_white(strip).convert("RGB"))
    return pixels_HWC


def _on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA"))


def _eight_bits(gray_HW: np.ndarray, format: str) -> np.ndarray:
    """Gray of more than 8 bits as uint8. The reference makes white of all that is above 255: as here where nothing is;
    else values are taken for the 16 bits that they are stored in."""
    least, most = gray_HW.min(), gray_HW.max()
    if gray_HW.dtype.kind == "f" or least < 0 or most > 65_535:
        raise ImageError("unsupported", f"{format} with {gray_HW.dtype} from {least} to {most}: which is white?")
    return (gray_HW if most <= 255 else gray_HW >> 8).astype(np.uint8)
