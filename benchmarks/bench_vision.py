"""Building: from files of photographs to records, and from records to windows: how many a second, and where time goes.

One worker and two build the same in turns, in CPU seconds: that there are two should cost next to nothing. Shares are
those of a run in this process whose parts are timed where they stand: decoding, looks, cutting, writing. Memory is of
a process that forms records of one image each: a photograph, a large one, one beyond the recipe's limit, a bomb.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.bench_image import noise
from benchmarks.harness import (
    Arm,
    Figure,
    Places,
    Report,
    Row,
    alike,
    alone,
    clocked,
    contest,
    figure,
    forget_peak,
    parts_of,
    resident,
)
from benchmarks.material import SHARED
from benchmarks.pool import pool_runner
from gristmill.filters.image.look import look
from gristmill.lake.store.objects import put_file, scratch
from gristmill.lake.store.opening import open_store
from gristmill.model.processing import image as processing
from gristmill.model.processing.image_file import ImageError, decode_image
from gristmill.model.shards.files import ShardWriter
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.mixture import MixtureConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.pipelines.vision import VisionConfig
from gristmill.stages.mix import kinds, pack
from gristmill.stages.run.runner import Runner
from gristmill.stages.vision import form

SIZE = (480, 640)
LIMIT = 64_000_000
"""Pixels of an image, as the recipe has it."""
PARTS = "decode", "look", "cut", "write"


def photographs(count: int, folder: Path) -> str:
    """Writes so many JPEG files, no two alike, with their lines; returns where they are from."""
    folder.mkdir()
    files, random = sorted((SHARED / "4_images").glob("coco_*.jpg")), np.random.default_rng(0)
    lines = []
    for n in range(count):
        picture = Image.open(files[n % len(files)]).convert("RGB") if files else Image.fromarray(noise(SIZE, n))
        left, top = (int(random.integers(0, side // 3)) for side in picture.size)
        box = (left, top, left + picture.width * 2 // 3, top + picture.height * 2 // 3)
        picture.resize(SIZE[::-1], Image.Resampling.BICUBIC, box=box).save(folder / f"{n}.jpg", quality=90)
        lines.append(json.dumps({"image": f"{n}.jpg", "text": f"A photograph of the mill by the river, {n}."}))
    (folder / "lines.jsonl").write_text("\n".join(lines) + "\n")
    return "parts of real photographs" if files else "generated pictures"


def built(lake: Path, folder: Path, runner_of: Callable[[Any], Runner]) -> list[str]:
    """Records, a tokenizer, windows; the digests of these versions."""
    store = open_store(str(lake))
    lines = f"folder::{folder / 'lines.jsonl'}"
    # No child process: its CPU time would be nobody's.
    records = {"inputs": [lines], "scan": {"chunk_records": 16}, "image": {"seconds_per_record": None}}
    tokenizer = {"dataset": "bpe", "sources": ["vision@v1"], "train": {"vocab_size": 400}}
    windows = {"tokenizer": "bpe@v1", "sources": {"vision@v1": {"weight": 1, "max_epochs": 1}}, "window": 8192}
    windows |= {"images": {"max_crops": 36}, "max_waste": 0.1, "shard_crops": 100}
    recipes = ((VisionConfig, records), (TokenizerConfig, tokenizer), (MixtureConfig, windows))
    return [
        run_pipeline(config.model_validate({"recipe": recipe}), store, runner_of(store)).manifest.content_digest
        for config, recipe in recipes
    ]


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """CPU seconds of each of PARTS, while it is open."""
    seconds = dict.fromkeys(PARTS, 0.0)
    decode, write = clocked(decode_image, seconds, "decode"), clocked(put_file, seconds, "write")
    with (
        mock.patch.object(form, "decode_image", decode),
        mock.patch.object(kinds, "decode_image", decode),
        mock.patch.object(form, "look", clocked(look, seconds, "look")),
        mock.patch.object(processing, "crops", clocked(processing.crops, seconds, "cut")),
        mock.patch.object(pack, "put_file", write),
        mock.patch.object(ShardWriter, "write", clocked(ShardWriter.write, seconds, "write")),
    ):
        yield seconds


def shares(folder: Path, places: Places, rounds: int) -> tuple[dict[str, Figure], Figure]:
    """CPU milliseconds an image of each part, of all else and of the whole; the second: seconds of the whole."""
    count = len(list(folder.glob("*.jpg")))
    rows = parts_of(lambda: built(places.fresh(), folder, lambda store: Runner(store, workers=0)), timed, rounds)
    each = {name: figure([1000 * row[name] / count for row in rows]) for name in rows[0]}
    return each, figure([row["whole"] for row in rows])


# Memory.


def header_of(side: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels a side."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(200)))
    packed = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def plain(height: int, width: int, format: str) -> bytes:
    """A file of one colour: a few kilobytes that become many pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (90, 140, 60)).save(stream, format)
    return stream.getvalue()


def peak(make: Callable[[], bytes]) -> tuple[float, str]:
    """MB that reading an image adds to what this process has, and what became of it."""
    data = make()
    decode_image(plain(64, 64, "JPEG"))
    forget_peak()
    before = resident("VmHWM")
    try:
        look(decode_image(data, LIMIT))
        fate = "read"
    except ImageError as error:
        fate = error.reason
    return (resident("VmHWM") - before) / 2**20, fate


def memory(tiny: bool) -> dict[str, tuple[float, str]]:
    """Of each image, in a process of its own that saw nothing larger."""
    scale, file_of = (8, plain) if tiny else (1, plain_file)
    images = {
        "12 megapixels, JPEG": partial(file_of, 3000 // scale, 4000 // scale, "JPEG"),
        "64 megapixels, PNG": partial(file_of, 8000 // scale, 8000 // scale, "PNG"),
        "100 megapixels, PNG": partial(header_of, 10_000) if tiny else partial(plain_file, 10_000, 10_000, "PNG"),
        "a header of 4,000 megapixels": partial(header_of, 63_245),
    }
    peaks = {}
    for name, make in images.items():
        peaks[name] = alone(peak, make)
    return peaks


def plain_file(height: int, width: int, format: str) -> bytes:
    """As `plain`, made in another process, whose memory is not what is measured."""
    return alone(plain, height, width, format)


def run(tiny: bool) -> Report:
    """All three. `tiny`: on next to nothing, for the tests."""
    rounds, count = (1, 6) if tiny else (3, 96)
    with scratch() as scratch_folder:
        places, folder = Places(scratch_folder), scratch_folder / "photographs"
        source = photographs(count, folder)
        each, whole = shares(folder, places, rounds)
        store = open_store(str(places.fresh()))
        with pool_runner(store, 1) as single, pool_runner(store, 2) as double:
            arms = {
                "one worker": Arm(lambda: built(places.fresh(), folder, single.over)),
                "two workers": Arm(lambda: built(places.fresh(), folder, double.over)),
            }
            times = contest(arms, rounds, alike("vision: versions"))
    peaks = memory(tiny)
    same = "every version's digest"
    rate = Figure(*(count / seconds for seconds in (whole.median, whole.high, whole.low)))
    return Report(
        name="vision",
        data=f"{count} JPEG files of {SIZE[0]} x {SIZE[1]}, {source}; records, then windows of 8,192 tokens",
        rounds=rounds,
        rows=(
            Row("images to records to windows, a CPU second", rate, "images", same),
            Row("an image, whole", each["whole"], "ms", same),
            *(Row(f"an image: {part}", each[part], "ms") for part in (*PARTS, "else")),
            Row("two workers, of the CPU time of one", times.ratio("two workers", "one worker"), "x", same),
            *(
                Row(f"memory of {name}: {fate}", figure([max(size, 0.001)]), "MB")
                for name, (size, fate) in peaks.items()
            ),
        ),
        notes=(
            "decode: once for a record, once for a window; write: tar, index and digests of windows; else: all that a"
            " run does beside, of which most does not grow with images",
        ),
        details={"cpu_seconds": {name: times.seconds(name).median for name in times.cpu}},
    )
