"""What do 2.8 hours of audio take, 126,000 tokens, from a file through log-Mel, encoder and prompt at nano's shape?

A process for each length reads a FLAC file as the engine asks for it, and writes one token. Its peak memory, beside
libraries, weights, and what has to grow with the context (caches of keys and values, tables of angles), has to be about
that of a clip of ten minutes. CPU seconds of one thread; the longest clip takes a quarter of an hour of them. What the
full shape takes is computed (`model.plan.prompt`): no such run is made.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch

from benchmarks.harness import Differ, Report, Row, alone, figure, forget_peak, resident
from benchmarks.material import speech
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.requests import Clip
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.plan.prompt import PromptEstimate, estimate_prompt
from gristmill.model.processing.audio import audio_tokens, frames_of, log_mel_blocks
from gristmill.model.processing.audio_file import audio_blocks
from gristmill.model.processing.audio_rates import RATE

PAGE = 256
"""Tokens of a page, and of a chunk of the prompt."""
WORDS = 16


class Taken(NamedTuple):
    """`peak` bytes of the process, those of libraries, weights, caches and tables of angles among them, which were
    there before (`before`); CPU seconds."""

    tokens: int
    before: int
    peak: int
    context: int
    seconds: float

    @property
    def grown(self) -> int:
        """Bytes that the clip and its prompt took."""
        return self.peak - self.before


def options_for(tokens: int, page: int) -> Options:
    """Of an engine with room for a prompt of so many, and a token, in pages and chunks of so many."""
    return Options(4, (tokens // page + 1) * page, 4, prefill_chunk_size=page, block_size=page)


def taken_by(path: Path, seconds: int) -> Taken:
    """What a file takes, in this process, which has done nothing else."""
    torch.set_num_threads(1)
    frames = frames_of(seconds * RATE)
    model = Multimodal.seeded(PRESETS["nano"], 0).eval()
    assert model.config.audio is not None
    tokens = (*range(20, 20 + WORDS), *(model.config.audio.audio_token_id,) * audio_tokens(frames))
    options = options_for(len(tokens), PAGE)
    engine = Engine(model, options)
    angles = sum(table.nbytes for table in (engine._angles._cos_2LR, engine._angles._sin_2LR))
    context = options.bytes(model.config, torch.float32) + angles
    for cache in (engine._cache, engine._prefill.cache):  # written to, or their memory would be counted as it is used
        cache.keys.fill_(0)
        cache.values.fill_(0)
    forget_peak()
    before, started = resident(), time.process_time()
    with path.open("rb") as file:
        clip = Clip(frames, lambda: log_mel_blocks(audio_blocks(file), RATE, exact=False))
        sampling = Sampling(max_tokens=1, temperature=0, ignore_eos=True)
        (done,) = engine.run([Request("long", tokens, sampling, clips=(clip,))])
    if len(done.tokens) != 1 or done.adapter != "speech":
        raise Differ(f"long_audio: {done.tokens} by adapter {done.adapter}")
    return Taken(len(tokens), before, resident("VmHWM"), context, time.process_time() - started)


def written(path: Path, seconds: int) -> None:
    """A file of so many seconds: a minute of speech over and over."""
    minute = speech(60)[1]
    with soundfile.SoundFile(path, "w", RATE, 1, format="FLAC") as file:
        for at in range(0, seconds, 60):
            file.write(minute[: RATE * min(60, seconds - at)])


def run(tiny: bool) -> Report:
    """One length after another. `tiny`: on next to nothing, for the tests."""
    lengths = (20, 50) if tiny else (600, 2400, 10_080)
    took: dict[int, Taken] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seconds in lengths:
            path = Path(folder, f"{seconds}.flac")
            written(path, seconds)
            took[seconds] = alone(taken_by, path, seconds)
            path.unlink()
    short, long = took[lengths[0]], took[lengths[-1]]
    full = {seconds: full_shape(each.tokens, seconds) for seconds, each in took.items()}
    rows = [
        Row(
            f"memory that {lengths[-1]:,} s of audio take beside their context, of that of {lengths[0]} s",
            figure([100 * long.grown / short.grown]),
            "%",
            "one token written after each",
        ),
        *(
            Row(f"{seconds:,} s of audio, {each.tokens:,} tokens, to the first token", figure([each.seconds]), "s")
            for seconds, each in took.items()
        ),
    ]
    return Report(
        name="long_audio",
        data=f"{speech(1)[0]}: FLAC at {RATE} Hz, nano, prompts in chunks of {PAGE} tokens, one thread",
        rounds=1,
        rows=tuple(rows),
        notes=tuple(sentence_of(seconds, shape) for seconds, shape in full.items()),
        details={
            "took": {str(seconds): each._asdict() for seconds, each in took.items()},
            "full_shape": {str(seconds): asdict(shape) for seconds, shape in full.items()},
        },
    )


def sentence_of(seconds: int, shape: PromptEstimate) -> str:
    """What the full shape takes, in words."""
    return (
        f"the full shape, {seconds:,} s in bfloat16: {shape.bytes / 2**30:.1f} GiB, of which"
        f" {shape.cache / 2**30:.1f} are keys and values; {shape.flops / 1e15:.2f} PFLOP,"
        f" {shape.attention_flops / shape.flops:.0%} of it attention"
    )


def full_shape(tokens: int, seconds: int) -> PromptEstimate:
    """What a prompt with a clip takes of the release's shape, in bfloat16, one alone in its engine."""
    shape, options = PRESETS["multimodal"], options_for(tokens, 128)
    return estimate_prompt(shape, tokens, frames_of(seconds * RATE), options, torch.bfloat16)
