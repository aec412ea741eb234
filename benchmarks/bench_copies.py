"""Are copies of pictures found, and no strangers taken for them? Against the hashes of `imagehash`.

Of each picture copies are planted as people make them: other sizes, JPEG, WebP and GIF, a few pixels cut off, slightly
other colours, each as a file that is decoded again. First the hashes alone: how many copies lie within the distance
that each hash is used with, how many pairs of different pictures do. Then all files through the pipeline, as records of
one text and whatever the text is: which are dropped, in favour of whom.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import imagehash
import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.bench_image import noise
from benchmarks.harness import Differ, Report, Row, figure
from benchmarks.material import SHARED
from gristmill.filters.image.look import BITS, look
from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.objects import scratch
from gristmill.lake.store.opening import open_store
from gristmill.model.processing.image_file import ImageError, decode_image
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.vision import VisionConfig
from gristmill.stages.run.runner import Runner
from gristmill.stages.vision.form import SAME
from gristmill.stages.vision.sign import MIN_SIMILARITY

LARGEST, SMALLEST = 640, 96
"""Pixels: what is larger is made smaller, so that all pictures count alike; of what is smaller four pixels are much."""
ALIKE = ("hopper", "no_time_for_that")
"""In names of files of one picture: the first of them is taken."""
DISTANCE = int(BITS * (1 - MIN_SIMILARITY))
Hash = Callable[[Image.Image], np.ndarray]


class Picture(NamedTuple):
    """`kind`: the copy that it is, "" of an original. `data`: a file."""

    original: int
    kind: str
    data: bytes


def file_of(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Its bytes."""
    stream = io.BytesIO()
    if format == "PNG":
        options["compress_level"] = 1
    picture.save(stream, format, **options)
    return stream.getvalue()


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    """Larger or smaller."""
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def cut(picture: Image.Image, left: int, top: int, right: int, bottom: int) -> Image.Image:
    """Without so many pixels at each side."""
    return picture.crop((left, top, picture.width - right, picture.height - bottom))


def cut_percent(picture: Image.Image, percent: float) -> Image.Image:
    """Without so much of each side."""
    x, y = (max(1, round(side * percent / 100)) for side in picture.size)
    return cut(picture, x, y, x, y)


def recoloured(picture: Image.Image) -> Image.Image:
    """Stronger colours, brighter, less contrast."""
    stronger = ImageEnhance.Color(picture).enhance(1.2)
    return ImageEnhance.Contrast(ImageEnhance.Brightness(stronger).enhance(1.08)).enhance(0.92)


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "half the size": lambda picture: file_of(scaled(picture, 0.5)),
    "a third of the size": lambda picture: file_of(scaled(picture, 1 / 3)),
    "1.5 times the size": lambda picture: file_of(scaled(picture, 1.5)),
    "JPEG 60": lambda picture: file_of(picture, "JPEG", quality=60),
    "JPEG 20": lambda picture: file_of(picture, "JPEG", quality=20),
    "half the size, JPEG 60": lambda picture: file_of(scaled(picture, 0.5), "JPEG", quality=60),
    "WebP 50": lambda picture: file_of(picture, "WEBP", quality=50),
    "GIF": lambda picture: file_of(picture, "GIF"),
    "other colours": lambda picture: file_of(recoloured(picture)),
    "4 pixels cut off each side": lambda picture: file_of(cut(picture, 4, 4, 4, 4)),
    "3 and 5 pixels cut off two sides": lambda picture: file_of(cut(picture, 5, 3, 0, 0)),
    "1 % cut off each side": lambda picture: file_of(cut_percent(picture, 1)),
    "3 % cut off each side": lambda picture: file_of(cut_percent(picture, 3)),
}


def originals(tiny: bool) -> tuple[str, list[Image.Image]]:
    """Where they are from, and pictures that are not alike: the real ones and some that are generated."""
    pictures = [noise((300, 400), seed) for seed in range(6 if tiny else 30)]
    folder = SHARED / "4_images"
    if tiny or not folder.is_dir():
        return "generated pictures", [Image.fromarray(pixels) for pixels in pictures]
    met = set[str]()
    for path in sorted(folder.iterdir()):
        names = {name for name in ALIKE if name in path.name}
        if names & met:
            continue
        try:
            pixels = decode_image(path.read_bytes())
        except ImageError:
            continue
        if min(pixels.shape[:2]) >= SMALLEST:
            met |= names
            pictures.append(pixels)
    shown = [Image.fromarray(pixels) for pixels in pictures]
    for picture in shown:
        picture.thumbnail((LARGEST, LARGEST))
    return f"{len(shown) - 30} real pictures and 30 generated ones", shown


def planted(pictures: Sequence[Image.Image]) -> list[Picture]:
    """Each with its copies."""
    files = [Picture(n, "", file_of(picture)) for n, picture in enumerate(pictures)]
    return files + [Picture(n, kind, make(of)) for kind, make in COPIES.items() for n, of in enumerate(pictures)]


# Hashes.


def own_hash(picture: Image.Image) -> np.ndarray:
    """Bits of `look`."""
    return np.unpackbits(np.frombuffer(look(np.asarray(picture)).to_bytes(BITS // 8, "big"), np.uint8))


def peer(function: Callable[[Image.Image], Any], picture: Image.Image) -> np.ndarray:
    """Bits of a hash of `imagehash`."""
    return np.asarray(function(picture).hash, np.uint8).ravel()


HASHES: dict[str, tuple[Hash, int]] = {
    "gristmill": (own_hash, DISTANCE),
    "phash": (partial(peer, imagehash.phash), 10),
    "dhash": (partial(peer, imagehash.dhash), 10),
    "whash": (partial(peer, imagehash.whash), 10),
    "average_hash": (partial(peer, imagehash.average_hash), 10),
}
"""By name, with the distance in bits within which two pictures are alike."""


def hashed(files: Sequence[Picture]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Bits of each file by each of HASHES, uint8 [files, bits], and the CPU microseconds that a picture took."""
    bits: dict[str, list[np.ndarray]] = {name: [] for name in HASHES}
    seconds = dict.fromkeys(HASHES, 0.0)
    for each in files:
        picture = Image.fromarray(decode_image(each.data))
        for name, (function, _) in HASHES.items():
            started = time.process_time()
            bits[name].append(function(picture))
            seconds[name] += time.process_time() - started
    return (
        {name: np.stack(rows) for name, rows in bits.items()},
        {name: 1e6 * taken / len(files) for name, taken in seconds.items()},
    )


def judged(files: Sequence[Picture], bits: np.ndarray, distance: int) -> dict[str, Any]:
    """recall: % of the copies, also by kind; strangers: % of the originals that lie so near to another one; closest:
    bits between two of them."""
    own = {each.original: n for n, each in enumerate(files) if not each.kind}
    apart = np.array([(bits[n] != bits[own[each.original]]).sum() for n, each in enumerate(files)])
    kinds = np.array([each.kind for each in files])
    first = bits[list(own.values())]
    between = (first[:, None] != first[None]).sum(-1) + BITS * np.eye(len(first), dtype=np.int64)
    return {
        "recall": 100 * float((apart[kinds != ""] <= distance).mean()),
        "strangers": 100 * float((between.min(axis=1) <= distance).mean()),
        "closest": int(between.min()),
        "distance": distance,
        "kinds": {kind: round(float((apart[kinds == kind] <= distance).mean()), 3) for kind in COPIES},
    }


# The pipeline.


def through_pipeline(files: Sequence[Picture], folder: Path, same: str) -> dict[str, float]:
    """What `dropped_right` says of the records that the files become."""
    folder.mkdir()
    rows = []
    for n, each in enumerate(files):
        (folder / f"{n}").write_bytes(each.data)
        rows.append(json.dumps({"id": f"{n}", "image": f"{n}", "text": "A mill by the river."}))
    (folder / "lines.jsonl").write_text("\n".join(rows) + "\n")
    recipe = {
        "inputs": [f"folder::{folder / 'lines.jsonl'}"],
        "image": {"same": same, "seconds_per_record": None},
        "survivor": ["image_size.pixels"],
    }
    store = open_store(str(folder / "lake"))
    manifest = run_pipeline(VisionConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)).manifest
    recall, precision, lost = dropped_right("copies", Dataset(store, manifest), [each.original for each in files])
    return {"recall": recall, "precision": precision, "pictures_lost": lost}


def dropped_right(what: str, dataset: Dataset, originals: Sequence[int]) -> tuple[float, float, int]:
    """recall: % of the records that are more than one of an original and are dropped; precision: % of those dropped
    that have a survivor of their own original; how many originals have no record any more. `originals`: of each record,
    by its ordinal. Raises Differ where a record has no fate."""
    ledger = dataset.ledger().to_pylist()
    of_id = {row["id"]: originals[row["ordinal"]] for row in ledger}
    dropped = [row for row in ledger if row["fate"] == "dropped"]
    if len(ledger) != len(originals) or any(row["survivor"] is None for row in dropped):
        raise Differ(f"{what}: {len(ledger)} fates of {len(originals)} records: {dropped[:1]}")
    right = sum(of_id[row["survivor"]] == of_id[row["id"]] for row in dropped)
    every = set(originals)
    lost = len(every - {of_id[row["id"]] for row in ledger if row["fate"] == "kept"})
    return 100 * right / (len(originals) - len(every)), 100 * right / max(1, len(dropped)), lost


def run(tiny: bool) -> Report:
    """Hashes, then the pipeline. `tiny`: on a few generated pictures, for the tests."""
    source, pictures = originals(tiny)
    files = planted(pictures)
    bits, microseconds = hashed(files)
    hashes = {name: judged(files, bits[name], distance) for name, (_, distance) in HASHES.items()}
    with scratch() as folder:
        ways = {same: through_pipeline(files, folder / same, same) for same in SAME}
    copies = f"every one of {len(files) - len(pictures):,} copies"
    rows = [Row(f"{name}: copies found", figure([of["recall"]]), "%", copies) for name, of in hashes.items()]
    pairs = f"{len(pictures) * (len(pictures) - 1) // 2:,} pairs"
    rows += [
        Row(f"{name}: pictures that are not taken for another", figure([100 - of["strangers"]]), "%", pairs)
        for name, of in hashes.items()
    ]
    for same, shown in zip(SAME, ("of one text", "whatever is said of them"), strict=True):
        rows += [
            Row(f"pipeline, pictures {shown}: {what}", figure([ways[same][what]]), "%", "every fate")
            for what in ("recall", "precision")
        ]
    return Report(
        name="copies",
        data=f"{source}, each with {len(COPIES)} copies",
        rounds=1,
        rows=tuple(rows),
        notes=(f"alike: at most {DISTANCE} of {BITS} bits apart, of each of these hashes; nothing here is drawn",),
        details={
            "hashes": hashes,
            "pipeline": ways,
            "microseconds": microseconds,
            "packages": {name: importlib.metadata.version(name) for name in ("imagehash", "pillow", "PyWavelets")},
        },
    )
