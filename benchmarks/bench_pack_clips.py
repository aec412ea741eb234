"""Packing of clips beside texts and images: how many places stay empty, and what does a budget of frames bound?

Documents, chats, images, clips of seconds, some of minutes, and spoken questions about images: each costs tokens, and
some crops or frames. Packed with budgets of crops and frames and without the latter; in the windows of each round every
sample is whole and no budget is exceeded. Then the peak memory of a step at `nano` on windows of equal tokens: of text
alone, of one long clip, of many short ones, and of both beside each other, against text.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.bench_pack_images import check, spread, taken, usual, with_images
from benchmarks.harness import Figure, Report, Row, alone, figure, forget_peak, resident
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.audio import audio_tokens, frames_of
from gristmill.model.processing.audio_rates import BANDS, RATE
from gristmill.model.processing.packing import Budget, Packing, pack
from gristmill.model.train.objective import Objective, collate

WINDOW, CROPS, FRAMES = 16_384, 80, 65_536
"""Tokens, crops and frames of a window: half of the frames that its tokens have room for."""
MAX_WASTE = 0.02
STEP = 4096
"""Tokens of the windows whose memory is measured."""
SAME = "every sample, every window"


class Samples(NamedTuple):
    """Tokens, crops and frames of each, int64 [samples]; splittable: which are documents, bool [samples]."""

    tokens: np.ndarray
    crops: np.ndarray
    frames: np.ndarray
    splittable: np.ndarray


def seconds_of(random: np.random.Generator) -> float:
    """Of a clip: utterances, as corpora have them, and one of fifteen of minutes."""
    if random.random() < 1 / 15:
        return float(random.uniform(60, 1200))
    return float(np.clip(random.lognormal(1.9, 0.7), 0.5, 30))


def mixed(seed: int, count: int) -> Samples:
    """A quarter documents, a tenth chats, a quarter of images, and of clips the others: one in four of these is a
    question about an image."""
    random = np.random.default_rng(seed)
    rows = []
    for kind in random.random(count):
        text, crops, frames = int(random.integers(10, 200)), 0, 0
        if kind < 0.25:
            text = int(np.clip(random.lognormal(6.0, 1.2), 8, 60_000))
        elif kind < 0.35:
            text = int(np.clip(random.lognormal(5.0, 0.8), 8, 4_000))
        elif kind < 0.6:
            text, crops = with_images(random, usual, 1 if random.random() < 0.8 else 3)
        else:
            about_image = random.random() < 0.25
            if about_image:
                text, crops = with_images(random, usual, 1)
            seconds = float(random.uniform(1, 8)) if about_image else seconds_of(random)
            frames = frames_of(round(seconds * RATE))
        rows.append((text + audio_tokens(frames), crops, frames, kind < 0.25))
    tokens, crops_of, frames_taken, splittable = (np.array(column) for column in zip(*rows, strict=True))
    fits = splittable | ((tokens <= WINDOW) & (crops_of <= CROPS) & (frames_taken <= FRAMES))
    return Samples(tokens[fits], crops_of[fits], frames_taken[fits], splittable[fits])


def packed(samples: Samples, frames: int | None) -> tuple[Packing, list[int], float]:
    """The windows, the frames of each, and the seconds that it took. Raises Differ."""
    started = time.process_time()
    budgets = [Budget("crops", samples.crops, CROPS), Budget("frames", samples.frames, frames)]
    packing = pack(samples.tokens, samples.splittable, WINDOW, max_waste=MAX_WASTE, budgets=budgets)
    seconds = time.process_time() - started
    check("pack_clips", samples.tokens, packing, WINDOW, budgets)
    return packing, taken(samples.frames, packing), seconds


def measures(samples: Samples) -> dict[str, float]:
    """Of one draw."""
    bound, frames, seconds = packed(samples, FRAMES)
    without, free, _ = packed(samples, None)
    return {
        "empty": 100 * bound.waste,
        "empty without": 100 * without.waste,
        "fullest": 100 * max(frames) / FRAMES,
        "fullest without": 100 * max(free) / (8 * WINDOW),
        "windows": len(bound.windows) / len(without.windows),
        "us": 1e6 * seconds / len(samples.tokens),
    }


# Memory of a step.


def window_of(frames: Sequence[int], tokens: int) -> dict[str, np.ndarray]:
    """A window of so many tokens: clips of so many frames, a sample each, and text in the places that are left."""
    audio, random = PRESETS["nano"].audio, np.random.default_rng(0)
    assert audio is not None
    lengths = [audio_tokens(count) + 8 for count in frames]
    ids = [
        np.concatenate([np.full(length - 8, audio.audio_token_id), random.integers(20, 300, 8)]) for length in lengths
    ]
    left = tokens - sum(lengths)
    lengths += [512] * (left // 512) + ([left % 512] if left % 512 else [])
    ids.append(random.integers(20, 300, left))
    input_ids = np.concatenate(ids).astype(np.int32)
    window = {
        "input_ids": input_ids,
        "loss_mask": input_ids != audio.audio_token_id,
        "cu_seqlens": np.cumsum([0, *lengths]).astype(np.int32),
    }
    if frames:
        window["mel"] = random.uniform(0, 20, (sum(frames), BANDS)).astype(np.float32)
        window["cu_frames"] = np.cumsum([0, *frames]).astype(np.int32)
    return window


def peak_of(frames: Sequence[int], tokens: int) -> int:
    """Bytes that this process grew by, at most, in a step that trains all parts."""
    torch.set_num_threads(1)
    model, window = Multimodal.seeded(PRESETS["nano"], 0), window_of(frames, tokens)
    gc.collect()
    before = resident()
    forget_peak()
    loss, _ = Objective(model)(collate([window], PRESETS["nano"]))
    loss.backward()
    return resident("VmHWM") - before


def peaks(tokens: int) -> dict[str, int]:
    """Bytes of a step on windows of equal tokens, each in a process of its own."""
    whole = 8 * (tokens - 64)  # of one clip, and its question
    short = [320] * (tokens // 48)
    clips: dict[str, Sequence[int]] = {
        "text": [],
        "half of it clips": [whole // 2],
        "one long clip": [whole],
        "many short clips": short,
        "a long clip beside short ones": [whole // 2, *short[: len(short) // 2 - 2]],
    }
    sizes = {}
    for name, frames in clips.items():
        sizes[name] = alone(peak_of, frames, tokens)
    return sizes


def run(tiny: bool) -> Report:
    """Packing, and memory. `tiny`: of next to nothing, for the tests."""
    rounds, count, tokens = (1, 300, 256) if tiny else (5, 8000, STEP)
    both: Mapping[str, Figure] = spread([measures(mixed(seed, count)) for seed in range(rounds)])
    sizes = peaks(tokens)
    memory = {name: figure([size / sizes["text"]]) for name, size in sizes.items() if name != "text"}
    details: dict[str, Any] = {name: value._asdict() for name, value in both.items()}
    return Report(
        name="pack_clips",
        data=f"{count:,} generated samples a round: documents, chats, images, clips, spoken questions about images;"
        f" windows of {WINDOW:,} tokens, {CROPS} crops and {FRAMES:,} frames; steps on {tokens:,} tokens",
        rounds=rounds,
        rows=(
            Row("texts, images and clips: empty places", both["empty"], "%", SAME),
            Row("texts, images and clips: empty places without a budget of frames", both["empty without"], "%", SAME),
            Row("frames of the fullest window, of the budget", both["fullest"], "%", SAME),
            Row("without it, of what its tokens have room for", both["fullest without"], "%", SAME),
            Row("windows, of those without a budget of frames", both["windows"], "x", SAME),
            *(Row(f"peak memory of a step, {name}, of text alone", ratio, "x") for name, ratio in memory.items()),
        ),
        notes=(
            "a clip has 8 frames a token, so the budget of tokens bounds frames too; one of frames bounds what the"
            " encoder's activations take beside the decoder's",
        ),
        details={**details, "peak_bytes": sizes},
    )
