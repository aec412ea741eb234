"""How soon is an image what the encoder takes, against the image processor of transformers? In which form is it stored?

One thread. First from the pixels of an image of 1080 x 1920 to floats, then from the crops of a window that was stored
(as they are, and compressed) to the same floats: all have to be the reference's, bit for bit. Then the crops of
photographs of 12 megapixels in several forms: what decoding costs beside decoding the photograph itself, and the size.
"""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import zstandard
from PIL import Image
from torch import Tensor
from transformers.models.phi4_multimodal.image_processing_phi4_multimodal import Phi4MultimodalImageProcessor

from benchmarks.harness import Arm, Differ, Figure, Report, Row, Times, contest
from benchmarks.material import SHARED
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.image import CROP, Crops, crops
from gristmill.model.processing.image_file import decode_image
from gristmill.model.windows.media import media_inputs

REFERENCE, FLOATS, STORED, ZSTD = "reference", "image to floats", "stored as they are", "stored, zstd 1"
SOURCE = "the photograph, JPEG"
PHOTOGRAPHS = ("sharp__gain-map.jpg", "scikit-image__retina.jpg", "coco_000000213148.jpg")
CAP = 36
TIMES = 5
"""An arm does its work so often in a round: once takes a few milliseconds, and looking at the clock takes one."""


class Form(NamedTuple):
    """A way to store crops, uint8 [n, S, S, 3], as bytes."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


def as_picture(tiles: np.ndarray, **options: Any) -> bytes:
    """A file of Pillow with the crops one below the other."""
    target = io.BytesIO()
    Image.fromarray(tiles.reshape(-1, *tiles.shape[2:])).save(target, **options)
    return target.getvalue()


def of_picture(data: bytes) -> np.ndarray:
    """The crops of such a file."""
    picture = np.asarray(Image.open(io.BytesIO(data)))
    side = picture.shape[1]
    return picture.reshape(-1, side, side, 3)


def zstd(level: int) -> Form:
    """Crops as they are, compressed."""

    def decode(data: bytes) -> np.ndarray:
        flat = np.empty(zstandard.frame_content_size(data), np.uint8)
        zstandard.ZstdDecompressor().stream_reader(data).readinto(flat.data)
        return flat.reshape(-1, CROP, CROP, 3)

    return Form(lambda tiles: zstandard.ZstdCompressor(level).compress(tiles.tobytes()), decode)


FORMS = {
    "raw": Form(lambda tiles: tiles.tobytes(), lambda data: np.frombuffer(data, np.uint8).reshape(-1, CROP, CROP, 3)),
    "zstd -5": zstd(-5),
    "zstd 1": zstd(1),
    "zstd 3": zstd(3),
    "PNG 1": Form(partial(as_picture, format="PNG", compress_level=1), of_picture),
    "PNG 6": Form(partial(as_picture, format="PNG", compress_level=6), of_picture),
    "WebP": Form(partial(as_picture, format="WEBP", lossless=True, method=0, quality=0), of_picture),
}


def photographs(size: tuple[int, int], count: int) -> tuple[str, list[np.ndarray]]:
    """Where they are from, and so many pictures of this height and width: the middle of real ones, enlarged where they
    are smaller; else generated, noise of all scales."""
    folder, (height, width) = SHARED / "4_images", size
    if not folder.is_dir():
        return "generated pictures", [noise(size, seed) for seed in range(count)]
    pictures = []
    for name in PHOTOGRAPHS[:count]:
        whole = Image.fromarray(decode_image((folder / name).read_bytes()))
        scale = min(whole.height / height, whole.width / width)
        left, top = (whole.width - width * scale) / 2, (whole.height - height * scale) / 2
        middle = (left, top, left + width * scale, top + height * scale)
        pictures.append(np.asarray(whole.resize((width, height), Image.Resampling.BICUBIC, box=middle)))
    return "real photographs", pictures


def noise(size: tuple[int, int], seed: int) -> np.ndarray:
    """Colours whose amplitude falls with the frequency, as in photographs."""
    pick, total = np.random.default_rng(seed), np.full((*size, 3), 128.0, np.float32)
    for octave in range(1, 9):
        coarse = Image.fromarray(pick.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
        fine = np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)
        total += (fine - 128) / octave
    return np.clip(total, 0, 255).astype(np.uint8)


def often(work: Callable[[], Any], times: int = TIMES) -> Any:
    """What the last of so many times came to."""
    for _ in range(times - 1):
        work()
    return work()


def to_floats(image: np.ndarray) -> Tensor:
    """As served: from an image, nothing stored."""
    return crops(image, CAP).pixels()


def to_inputs(load: Callable[[], np.ndarray], size: tuple[int, int]) -> Tensor:
    """As trained: from a window with one image."""
    window = {"tiles": load(), "image_sizes": np.array([size], np.int32)}
    return media_inputs([window], PRESETS["multimodal"], "cpu")["image_pixel_values"]


def by_reference(processor: Phi4MultimodalImageProcessor, image: np.ndarray) -> Tensor:
    """What transformers makes of it."""
    pixels: Tensor = processor([image], return_tensors="pt", input_data_format="channels_last")["image_pixel_values"][0]
    return pixels


def same_pixels(outcomes: Mapping[str, Tensor]) -> None:
    """Raises Differ unless all made the same bits of the image."""
    for name, pixels in outcomes.items():
        if not torch.equal(pixels, outcomes[REFERENCE]):
            raise Differ(f"image: pixels of {name} are not the reference's")


def first_contest(size: tuple[int, int], rounds: int) -> Times:
    """Everything that ends in floats, of one image."""
    image = photographs(size, 1)[1][0].copy()
    cut, processor = crops(image, CAP), Phi4MultimodalImageProcessor(dynamic_hd=CAP)
    form = FORMS["zstd 1"]
    packed = form.encode(cut.tiles)
    works = {
        REFERENCE: partial(by_reference, processor, image),
        FLOATS: partial(to_floats, image),
        STORED: partial(to_inputs, lambda: cut.tiles, cut.image_size),
        ZSTD: partial(to_inputs, lambda: form.decode(packed), cut.image_size),
    }
    # Each has done its work just before: as in a run, memory is there that the work before it gave back.
    return contest({name: Arm(partial(often, work), work) for name, work in works.items()}, rounds, same_pixels)


def from_source(photos: Sequence[bytes]) -> list[np.ndarray]:
    """The crops of JPEG files, nothing stored."""
    return [crops(decode_image(photo), CAP).tiles for photo in photos]


def decoded(form: Form, stored: Sequence[bytes]) -> list[np.ndarray]:
    """The crops of several images, stored apart."""
    return [form.decode(data) for data in stored]


def second_contest(photos: Sequence[bytes], cut: Sequence[Crops], rounds: int) -> tuple[Times, dict[str, int]]:
    """Times of all forms, and the bytes that they take."""
    stored = {name: [form.encode(each.tiles) for each in cut] for name, form in FORMS.items()}

    def check(outcomes: Mapping[str, list[np.ndarray]]) -> None:
        for name, pictures in outcomes.items():
            if not all(np.array_equal(tiles, each.tiles) for tiles, each in zip(pictures, cut, strict=True)):
                raise Differ(f"image: crops stored as {name} come back changed")

    arms = {name: Arm(partial(often, partial(decoded, form, stored[name]))) for name, form in FORMS.items()}
    times = contest({SOURCE: Arm(partial(from_source, photos)), **arms}, rounds, check)
    return times, {name: sum(map(len, parts)) for name, parts in stored.items()}


def milliseconds(times: Times, name: str, count: int) -> Figure:
    """Of one photograph, of the `count` that an arm decodes."""
    return Figure(*(1000 * seconds / count for seconds in times.seconds(name)))


def run(tiny: bool) -> Report:
    """Both contests. `tiny`: on next to nothing, for the tests."""
    rounds, small, large = (1, (60, 100), (90, 120)) if tiny else (7, (1080, 1920), (3024, 4032))
    source, pictures = photographs(large, 1 if tiny else 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first = first_contest(small, rounds)
        photos = [as_picture(picture[None], format="JPEG", quality=90) for picture in pictures]
        cut = [crops(decode_image(photo), CAP) for photo in photos]
        second, sizes = second_contest(photos, cut, rounds)
    finally:
        torch.set_num_threads(threads)
    same, bytes_, count = "every bit of the pixels", "every byte of the crops", len(photos)
    shares = {name: 100 * size / sizes["raw"] for name, size in sizes.items()}
    what = "crops of a 12-megapixel photograph"
    return Report(
        name="image",
        data=f"{source}: {small[0]} x {small[1]} in {len(first.outcomes[FLOATS]) - 1} crops; {count} of "
        f"{large[0]} x {large[1]}, in {len(cut[0].tiles)} crops each",
        rounds=rounds,
        rows=(
            Row("an image to float pixels, faster than transformers", first.ratio(REFERENCE, FLOATS), "x", same),
            Row("stored crops to the encoder's input", first.ratio(REFERENCE, STORED), "x", same),
            Row("stored crops, zstd 1, to the encoder's input", first.ratio(REFERENCE, ZSTD), "x", same),
            Row("decoding and cutting of a 12-megapixel JPEG", milliseconds(second, SOURCE, count), "ms", bytes_),
            *(
                Row(f"{what}, {name}: decoding", milliseconds(second, name, TIMES * count), "ms", bytes_)
                for name in FORMS
            ),
            *(Row(f"{what}, {name}: size of raw", Figure(*[share] * 3), "%") for name, share in shares.items()),
        ),
        notes=("raw crops are not copied when a shard is read: they are a view of its bytes",),
        details={
            "bytes": sizes,
            "source_bytes": sum(map(len, photos)),
            "cpu_seconds": {name: first.seconds(name).median for name in first.cpu},
            "packages": {name: importlib.metadata.version(name) for name in ("pillow", "torch", "torchvision")},
        },
    )
