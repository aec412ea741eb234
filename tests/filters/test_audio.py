"""Filters over clips and transcripts: what every filter has to do, where each of their tests cuts, how clips sound."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from speech import RATE, waveform

from gristmill.filters.audio.clip import ClipQuality
from gristmill.filters.audio.clips import Clips, Transcripts
from gristmill.filters.audio.levels import levels
from gristmill.filters.audio.sound import _centre, sound
from gristmill.filters.audio.transcript import SpeechRate, TranscriptQuality
from gristmill.filters.base import Filter
from gristmill.pipelines.speech import SpeechRecipe

CLIPS = [
    # seconds, rate, peak, silent, clipped, spoken, language
    ([2.0], 16_000, 0.5, 0.1, 0.0, "A mill by the river.", "en"),
    ([], 16_000, 0.5, 0.1, 0.0, None, None),
    ([0.05], 16_000, 0.5, 0.1, 0.0, None, "en"),
    ([2.0, 40.0], 16_000, 0.5, 0.1, 0.0, "A mill by the river, a mill by the river.", "en"),
    ([2.0], 4_000, 0.5, 0.1, 0.0, "A mill", "en"),
    ([2.0], 16_000, 0.0, 1.0, 0.0, "A mill", "en"),
    ([2.0], 16_000, 0.5, 0.95, 0.0, "A mill", "en"),
    ([2.0], 16_000, 1.0, 0.1, 0.3, "A mill", "en"),
    ([1.0], 16_000, 0.5, 0.1, 0.0, "a" * 29, "de"),
    ([1.0], 16_000, 0.5, 0.1, 0.0, "a" * 31, "de"),
    ([1.0], 16_000, 0.5, 0.1, 0.0, "磨" * 15, "zh"),
    ([2.0], 16_000, 0.5, 0.1, 0.0, "磨", "zh"),
    ([2.0], 16_000, 0.5, 0.1, 0.0, "?!", "en"),
]  # fmt: skip
REASONS = {
    "clip": [None, None, "too_short", "too_long", "rate_too_low", "silent", "mostly_silent", "clipped", *[None] * 5],
    "speech_rate": [None, None, None, "too_slow", *[None] * 5, "too_fast", "too_fast", None, "too_slow"],
    "transcript": [
        None,
        None,
        "other_language",
        None,
        "repetitive",
        "empty",
        None,
        None,
        *["repetitive"] * 3,
        None,
        None,
    ],
}
TEXTS = [
    ("The mill stands by the river, and its wheel turns.", "en"), ("Der Müller mahlt das Korn.", None),
    ("Der Müller mahlt das Korn für alle Leute im Dorf.", "en"), ("Der Müller mahlt das Korn für alle.", "de"),
    ("thank you for watching " * 8, "en"), ("...", "en"), ("Eins zwei", "en"), ("", None),
    ("谢谢大家观看" * 6, "zh"), ("ご視聴ありがとうございました。" * 5, "ja"), ("ﾊｲﾊｲ" * 6, "ja"),
    ("在河边的磨坊里有一个很大很旧的轮子，每天都在转。", "zh"),
    ("川のそばの水車小屋には、大きくて古い車輪があります。", "ja"),
]  # fmt: skip


def clips(start: int = 0, end: int = len(CLIPS)) -> Clips:
    rows = CLIPS[start:end]

    def each(value: int, kind: pa.DataType) -> pa.Array:
        return pa.array([[row[value]] * len(row[0]) for row in rows], pa.list_(kind))

    columns = {
        "samples": pa.array([[round(n * row[1]) for n in row[0]] for row in rows], pa.list_(pa.int64())),
        "rates": each(1, pa.int64()),
        "depths": pa.array([[16] * len(row[0]) for row in rows], pa.list_(pa.int32())),
        "peaks": each(2, pa.float32()),
        "silent": each(3, pa.float32()),
        "clipped": each(4, pa.float32()),
        "spoken": pa.array([row[5] for row in rows], pa.string()),
        "language": pa.array([row[6] for row in rows], pa.string()),
        "bytes": pa.array([7] * len(rows), pa.int64()),
    }
    return Clips.of(pa.record_batch(columns))


def transcripts(start: int = 0, end: int = len(TEXTS)) -> Transcripts:
    texts, tags = (pa.array([row[n] for row in TEXTS[start:end]], pa.string()) for n in range(2))
    return Transcripts(texts, pa.nulls(end - start, pa.string()), tags, pa.array([7] * (end - start), pa.int64()))


EVERY = [
    (ClipQuality(), clips, len(CLIPS)),
    (SpeechRate(), clips, len(CLIPS)),
    (TranscriptQuality(), transcripts, len(TEXTS)),
]
every_filter = pytest.mark.parametrize(("filter_", "batch", "n"), EVERY, ids=lambda value: getattr(value, "name", ""))


def test_every_filter_of_the_pipeline_is_in_the_table() -> None:
    recipe = SpeechRecipe()
    assert {recipe.clip, recipe.speech_rate, recipe.transcript} == {filter_ for filter_, _, _ in EVERY}


@every_filter
def test_each_test_cuts_where_it_should(filter_: Filter, batch, n) -> None:
    wanted = [reason and f"{filter_.name}.{reason}" for reason in REASONS[filter_.name]]
    assert filter_.judge(batch()).to_pylist() == wanted
    assert {reason for reason in REASONS[filter_.name] if reason} <= set(filter_.evidence)


@every_filter
def test_one_by_one_is_one_batch(filter_: Filter, batch, n) -> None:
    together = filter_.measure(batch())
    alone = [filter_.measure(batch(row, row + 1)) for row in range(n)]
    assert pa.Table.from_batches(alone).equals(pa.Table.from_batches([together]))


@every_filter
def test_an_empty_batch_has_the_schema_of_any_other(filter_: Filter, batch, n) -> None:
    for empty in (batch(0, 0), type(batch()).empty()):
        assert filter_.measure(empty).schema == filter_.measure(batch()).schema
        assert filter_.judge(empty).equals(pa.array([], pa.string()))


def test_levels_of_a_clip() -> None:
    sine = 0.5 * np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE).astype(np.float32)
    measured = levels(sine, RATE)
    assert measured.peak == pytest.approx(0.5, abs=1e-3) and measured.loud_db == pytest.approx(-9.03, abs=0.05)
    assert (measured.silent, measured.clipped) == (0.0, 0.0)
    assert levels(np.zeros(RATE, np.float32), RATE) == (0.0, -120.0, 1.0, 0.0)
    assert levels(np.concatenate([sine, np.zeros(RATE, np.float32)]), RATE).silent == 0.5
    assert levels(np.clip(4 * sine, -1, 1), RATE).clipped > 0.5
    assert levels(0.3 * np.clip(4 * sine, -1, 1), RATE).clipped > 0.5  # made softer, the tops stay flat
    crest = 0.5 * np.sin((np.arange(RATE) + 0.5) * np.pi / 8).astype(np.float32)  # two samples at each top
    assert levels(crest, RATE).clipped == 0
    assert levels(sine[:100], RATE).loud_db > -12


def test_an_offset_is_no_sound() -> None:
    sine = 0.2 * np.sin(np.arange(RATE + 77) * 2 * np.pi * 440 / RATE).astype(np.float32)
    assert levels(sine + np.float32(0.4), RATE) == pytest.approx(levels(sine, RATE), abs=0.02)
    ramp = np.linspace(0.25, 0.75, RATE, dtype=np.float32)  # one of a recorder, in a real file
    for still in (ramp, np.full(RATE, 0.5, np.float32), ramp[:7]):
        measured = levels(still, RATE)
        assert measured.peak < 1e-4 and measured.silent == 1.0
    click = np.zeros(RATE + 3, np.float32)
    click[-1] = 0.5  # behind the last whole frame
    assert levels(click, RATE).peak > 0.4


def test_a_long_clip_measures_as_its_parts() -> None:
    clip = waveform(3, 20.0)
    both = levels(np.concatenate([np.clip(8 * clip, -1, 1)] * 8), RATE)  # blocks end within it
    alone = levels(np.clip(8 * clip, -1, 1), RATE)
    assert both == pytest.approx(alone, abs=1e-3)


def distance(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_copies_sound_alike_and_others_do_not() -> None:
    noise, quiet = np.random.RandomState(0).randn(3 * RATE).astype(np.float32), np.zeros(RATE // 4, np.float32)
    sounds, with_silence, trimmed = [], 0, 0
    for seed in range(16):
        own = waveform(seed, 3.0)
        sounds.append(sound(own, RATE))
        copies = [
            (waveform(seed, 3.0, 44_100), 44_100), (waveform(seed, 3.0, 8_000), 8_000), (0.2 * own, RATE),
            (own + 1e-3 * noise, RATE),
        ]  # fmt: skip
        assert max(distance(sounds[-1], sound(*copy)) for copy in copies) <= 8
        with_silence += distance(sounds[-1], sound(np.concatenate([quiet, own, quiet]), RATE)) <= 8
        trimmed += distance(sounds[-1], sound(own[RATE // 10 : -RATE // 10], RATE)) <= 8
    assert min(distance(*pair) for pair in combinations(sounds, 2)) > 16
    # Frames lie otherwise over these, and a centre between two loud places may fall to the other one.
    assert with_silence >= 15 and trimmed >= 10


def test_the_window_lies_where_it_is_loud_whatever_the_ends_are() -> None:
    bands_db = np.full((300, 16), -60.0)
    bands_db[120:140] = bands_db[20:24] = -10.0
    for first, end in ((0, 300), (30, 300), (0, 150), (110, 150), (5, 295)):
        assert _centre(bands_db[first:end], 12.8) + first == pytest.approx(130, abs=0.5)
    assert _centre(bands_db[:1], 0.1) == 0.5


def test_what_does_not_change_is_known_by_its_spectrum() -> None:
    time = np.arange(RATE) / RATE
    tones = [sound(np.sin(2 * np.pi * hertz * time).astype(np.float32), RATE) for hertz in (440, 2000)]
    assert tones[0] != tones[1] and sound(0.1 * np.sin(2 * np.pi * 440 * time).astype(np.float32), RATE) == tones[0]
    assert sound(np.zeros(3, np.float32), RATE) == sound(np.zeros(9000, np.float32), RATE)
