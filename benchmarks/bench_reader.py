"""How fast are samples read from shards, and how soon after a resume, against webdataset over the same tars?

Windows of text as a model is trained on them, written by our writer, read by both from the page cache. Ours reads one
random order of all samples, one range at a time, and checks the crc32 of each; webdataset reads tars front to back and
mixes within its ordinary buffer of 1000, and checks nothing. Both start from nothing: ours opens and checks all shards.
To resume deep in an epoch webdataset has to read again all that came before, undecoded. Keys and some values are
compared in every round, SHA-256 of every array once; a resume has to give what the uninterrupted pass gave there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import webdataset

from benchmarks.harness import Arm, Differ, Figure, Report, Row, Times, alone, contest, figure, require_equal
from gristmill.lake.store.objects import scratch
from gristmill.model.shards.files import ShardFile, ShardReader, ShardWriter

OURS, IN_TAR_ORDER, THEIRS = "gristmill, random order of all", "gristmill, tar order", "webdataset, shuffle(1000)"
BUFFER = 1000
SEED = 1
WINDOW = 4096
AHEAD = 8  # samples, where memory is looked at
NAMES = ("input_ids", "loss_mask", "cu_seqlens")

Read = tuple[str, tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Given:
    """Shards in a folder."""

    folder: Path
    shards: list[ShardFile]
    samples: int

    def reader(self) -> ShardReader:
        """Our reader of them."""
        return ShardReader(self.shards, lambda name: (self.folder / name).open("rb"), seed=SEED)

    def webdataset(self) -> Any:
        """Undecoded, in the one order that SEED gives."""
        urls = [str(self.folder / shard.tar) for shard in self.shards]
        return webdataset.WebDataset(urls, shardshuffle=False).shuffle(BUFFER, seed=SEED)


class Seen(NamedTuple):
    """What a timed reader notes of a sample; little, since all pay for it."""

    key: str
    first: int
    counted: bool
    last: int


def write(folder: Path, shards: int, each: int) -> Given:
    """So many shards of `each` samples."""
    rng = np.random.default_rng(0)
    files = []
    for s in range(shards):
        with ShardWriter(folder / f"{s:03d}.tar", folder / f"{s:03d}.index") as writer:
            for n in range(each):
                ids = rng.integers(0, 65_536, WINDOW, dtype=np.int32)
                cuts = np.sort(rng.integers(1, WINDOW, rng.integers(4, 9), dtype=np.int32))
                bounds = np.concatenate([[0], cuts, [WINDOW]]).astype(np.int32)
                arrays = dict(zip(NAMES, (ids, ids % 10 > 0, bounds), strict=True))
                writer.write(f"w{s:03d}-{n:06d}", {"members": [f"{s}/{n}"]}, arrays, tokens=WINDOW)
        files.append(ShardFile(f"{s:03d}.tar", f"{s:03d}.index", writer.samples, writer.bytes, writer.sha256))
    return Given(folder, files, shards * each)


def by_position(given: Given, position: int = 0) -> Iterator[Read]:
    """Samples in the random order, from a position."""
    reader = given.reader()
    for _, sample in reader.iterate(position, stop=given.samples):
        yield sample.key, tuple(sample.arrays[name] for name in NAMES)
    reader.close()


def by_number(given: Given) -> Iterator[Read]:
    """Samples in the order of the tars."""
    reader = given.reader()
    for number in range(given.samples):
        sample = reader.sample(number)
        yield sample.key, tuple(sample.arrays[name] for name in NAMES)
    reader.close()


def by_webdataset(given: Given, position: int = 0) -> Iterator[Read]:
    """Samples as webdataset yields them, from a position, decoded."""
    for sample in given.webdataset().slice(position, None).decode():
        yield sample["__key__"], tuple(sample[f"{name}.npy"] for name in NAMES)


def seen(read: Read) -> Seen:
    """What is noted of a sample."""
    key, (ids, mask, bounds) = read
    return Seen(key, int(ids[0]), bool(mask[-1]), int(bounds[-2]))


def whole(reading: Callable[[Given], Iterator[Read]], given: Given) -> list[Seen]:
    """What is noted of an epoch."""
    return [seen(read) for read in reading(given)]


def first(reading: Callable[[Given, int], Iterator[Read]], given: Given, position: int) -> Seen:
    """The first sample from a position."""
    samples = reading(given, position)
    sample = seen(next(samples))
    samples.close()  # type: ignore[attr-defined]  # a generator, whose handles end here and not in the next arm's time
    return sample


def digests(reading: Callable[[Given], Iterator[Read]], given: Given) -> list[str]:
    """SHA-256 of every sample, sorted."""
    return sorted(
        hashlib.sha256(
            b"".join([key.encode(), *(f"{a.dtype}{a.shape}".encode() + a.tobytes() for a in arrays)])
        ).hexdigest()
        for key, arrays in reading(given)
    )


def check_whole(outcomes: Mapping[str, list[Seen]], samples: int) -> None:
    """Raises Differ unless all saw each sample once, and ours in another order than the tars."""
    epoch = outcomes[OURS]
    if len({sample.key for sample in epoch}) != samples:
        raise Differ(f"reader: an epoch of ours has {len({sample.key for sample in epoch})} samples of {samples}")
    if epoch == outcomes[IN_TAR_ORDER]:
        raise Differ("reader: the random order is the tars' order")
    for name in (IN_TAR_ORDER, THEIRS):
        require_equal(f"reader: samples, ours against {name}", sorted(epoch), sorted(outcomes[name]))


def check_first(outcomes: Mapping[str, Seen], uninterrupted: Mapping[str, Seen]) -> None:
    """Raises Differ unless each resumed where its uninterrupted pass was."""
    for name, sample in outcomes.items():
        require_equal(f"reader: resumed against uninterrupted, {name}", sample, uninterrupted[name])


def memory(given: Given) -> tuple[int, int]:
    """Bytes resident at most in an epoch's first tenth, and in all of it. For a process of its own."""
    process, peak, early = psutil.Process(), 0, 0
    for position, _ in given.reader().iterate(stop=given.samples, ahead=AHEAD):
        if position % 20 == 0 or position == given.samples - 1:
            peak = max(peak, process.memory_info().rss)
        if position < given.samples // 10:
            early = peak
    return early, peak


def speed(times: Times, name: str, samples: int) -> Figure:
    """Samples a CPU-second."""
    seconds = times.seconds(name)
    return Figure(samples / seconds.median, samples / seconds.high, samples / seconds.low)


def rows_of(times: Times, resumed: Times, samples: int) -> list[Row]:
    """The figures of whole epochs and of resumes."""
    same = f"{samples:,} samples, SHA-256 of every array"
    rows = [
        Row(f"a CPU-second, {name} over {THEIRS}", times.ratio(THEIRS, name), "x", same)
        for name in (OURS, IN_TAR_ORDER)
    ]
    rows += [Row(f"a CPU-second, {name}", speed(times, name, samples), "samples/s", same) for name in times.cpu]
    same = "the sample of the uninterrupted pass"
    ms = figure([1000 * seconds for seconds in resumed.wall[OURS]])
    return [
        *rows,
        Row(
            "first sample after a resume at 90 %, webdataset's replay over ours", resumed.ratio(THEIRS, OURS), "x", same
        ),
        Row("first sample after a resume at 90 %, ours, wall", ms, "ms", same),
    ]


def memory_row(early: int, peak: int) -> Row:
    """The figure of memory."""
    ratio = peak / early
    what = f"resident memory, peak of an epoch over that of its first tenth ({AHEAD} ahead)"
    return Row(what, Figure(ratio, ratio, ratio), "x")


def epochs(given: Given, rounds: int) -> Times:
    """Whole epochs, once the arrays are known to be the same."""
    readings: dict[str, Callable[[Given], Iterator[Read]]]
    readings = {OURS: by_position, IN_TAR_ORDER: by_number, THEIRS: by_webdataset}
    expected, *others = (digests(reading, given) for reading in readings.values())
    for name, read_digests in zip((IN_TAR_ORDER, THEIRS), others, strict=True):
        require_equal(f"reader: arrays, ours against {name}", expected, read_digests)
    arms = {name: Arm(partial(whole, reading, given)) for name, reading in readings.items()}
    return contest(arms, rounds, partial(check_whole, samples=given.samples))


def resumes(given: Given, rounds: int) -> Times:
    """The first sample after nine tenths of an epoch."""
    position = given.samples * 9 // 10
    readings: dict[str, Callable[..., Iterator[Read]]] = {OURS: by_position, THEIRS: by_webdataset}
    uninterrupted = {name: seen(next(islice(read(given), position, None))) for name, read in readings.items()}
    arms = {name: Arm(partial(first, reading, given, position)) for name, reading in readings.items()}
    return contest(arms, rounds, partial(check_first, uninterrupted=uninterrupted))


def run(tiny: bool) -> Report:
    """The report; `tiny` with 240 samples."""
    rounds, shards, each, of_them = (1, 4, 60, 2) if tiny else (3, 20, 1000, 5)
    with scratch() as folder:
        given = write(folder, shards, each)
        part = Given(folder, given.shards[:of_them], of_them * each)
        read, resumed = epochs(part, rounds), resumes(given, rounds)
        early, peak = alone(memory, given)
    size = sum(shard.bytes for shard in given.shards)
    return Report(
        name="reader",
        data=f"{given.samples:,} made-up windows of {WINDOW} tokens in {shards} tars, {size / 1e6:,.0f} MB",
        rounds=rounds,
        rows=(*rows_of(read, resumed, part.samples), memory_row(early, peak)),
        notes=(
            "tars in the page cache: a disk that seeks, or an object store, would charge for random order",
            f"webdataset mixes within {BUFFER} samples of tars read in a row; ours mixes all samples, and checks crc32",
            "webdataset resumes by reading all that came before, undecoded; seeded, it comes to the same sample",
            f"epochs are of {of_them} of the tars; resumes, and memory in a process of its own, of all of them",
            f"resident memory: {early / 1e6:,.1f} MB in the first tenth, {peak / 1e6:,.1f} MB in all",
        ),
        details={
            "samples": given.samples,
            "samples_an_epoch": part.samples,
            "bytes": size,
            "cpu_seconds": {name: read.seconds(name).median for name in read.cpu},
            "resume_cpu_seconds": {name: resumed.seconds(name).median for name in resumed.cpu},
            "resident_bytes": {"first tenth": early, "epoch": peak},
            "packages": {"webdataset": importlib.metadata.version("webdataset")},
        },
    )
