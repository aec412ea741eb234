"""What do cheaper forms of log-Mel do to a model's logits? The float32 transform, and frames stored as float16.

Models of random weights of unit gain, so that logits are of order one and every layer counts: `nano`, and the released
shapes with the first blocks of the encoder and the first layers of the decoder, in float32. Clips of speech stand
before a question; of each form the largest difference of any logit from that of exact frames. A form is harmless, and
may be a default, where no logit of a clip moves by more than 1e-3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.bench_audio import speech
from benchmarks.harness import Differ, Figure, Report, Row, figure
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.audio import audio_tokens, log_mel
from gristmill.model.processing.audio_rates import RATE
from gristmill.model.windows.media import media_inputs

HARMLESS = 1e-3
"""Of a logit."""
FORMS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32 transform": lambda clip: log_mel(clip, RATE, exact=False),
    "float16 frames": lambda clip: log_mel(clip, RATE).astype(np.float16).astype(np.float32),
}
BLOCKS, LAYERS, ENTRIES = 4, 2, 4096
"""Of the released encoder, decoder and vocabulary, which have 24, 32 and 200,064: for memory, and minutes."""


def released() -> ModelConfig:
    """The widths of the release."""
    whole = PRESETS["multimodal"]
    assert whole.audio is not None
    ends = {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": (0,)}
    text = replace(whole.text, num_hidden_layers=LAYERS, vocab_size=ENTRIES, **ends)
    audio = replace(whole.audio, num_blocks=BLOCKS, audio_token_id=12)
    return ModelConfig(text, None, audio, ())


def lively(config: ModelConfig, seed: int, mel: np.ndarray) -> Multimodal:
    """Weights of unit gain; frames are normalised by these, as the released encoder does by those of its data."""
    model = Multimodal.seeded(config, seed).eval()
    pick = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=pick)
        normalise = model.audio_encoder.encoder_embedding
        normalise.global_mean.copy_(torch.from_numpy(mel.mean(0)))
        normalise.global_invstd.copy_(torch.from_numpy(1 / mel.std(0)))
    return model


def logits_of(model: Multimodal, mel: np.ndarray) -> torch.Tensor:
    """Of the tokens of a clip and of a question behind it, [tokens, entries]."""
    audio = model.config.audio
    assert audio is not None
    tokens = [audio.audio_token_id] * audio_tokens(len(mel), audio.time_reduction)
    question = list(range(20, 40))
    window = {"mel": mel, "cu_frames": np.array([0, len(mel)], np.int32)}
    with torch.no_grad():
        inputs: dict[str, Any] = media_inputs([window], model.config, "cpu")
        logits: torch.Tensor = model(torch.tensor([[1, *tokens, *question]]), **inputs).logits[0]
    return logits


def errors(config: ModelConfig, clips: list[np.ndarray], seed: int) -> tuple[dict[str, float], float]:
    """The largest difference of any logit by form, and the deviation of logits. Raises Differ where another clip does
    not move them: then nothing is measured."""
    exact = [log_mel(clip, RATE) for clip in clips]
    model = lively(config, seed, np.concatenate(exact))
    logits = [logits_of(model, mel) for mel in exact]
    shuffled = logits_of(model, exact[0][::-1].copy())
    if float((shuffled - logits[0]).abs().max()) < 100 * HARMLESS:
        raise Differ("log_mel: logits hardly depend on the clip")
    moved: dict[str, float] = {}
    for name, form in FORMS.items():
        pairs = zip(clips, logits, strict=True)
        moved[name] = max(float((logits_of(model, form(clip)) - own).abs().max()) for clip, own in pairs)
    return moved, float(torch.cat(logits).std())


def run(tiny: bool) -> Report:
    """All shapes and forms. `tiny`: nano alone, of next to nothing, for the tests."""
    rounds, seconds, count = (1, 2, 1) if tiny else (3, 10, 3)
    shapes = {"nano": PRESETS["nano"]} if tiny else {"nano": PRESETS["nano"], "released": released()}
    data, samples = speech(seconds * count)
    clips = np.split(samples, count)
    rows, deviations, harmless = list[Row](), dict[str, Figure](), list[str]()
    for shape, config in shapes.items():
        measured = [errors(config, clips, seed) for seed in range(rounds)]
        deviations[shape] = figure([deviation for _, deviation in measured])
        for form in FORMS:
            moved = figure([1e3 * by_form[form] for by_form, _ in measured])
            rows.append(Row(f"{shape}: largest change of a logit by {form}", moved, "e-3", "every logit"))
            verdict = "within" if moved.high <= 1e3 * HARMLESS else "beyond"
            harmless.append(f"{form} at {shape}: {verdict} {HARMLESS:g}")
    return Report(
        name="log_mel",
        data=f"{data}: {count} clips of {seconds} s; random weights of unit gain, released shapes with {BLOCKS} blocks"
        f" of the encoder and {LAYERS} layers of the decoder",
        rounds=rounds,
        rows=tuple(rows),
        notes=("; ".join(harmless),),
        details={"deviation_of_logits": {shape: value._asdict() for shape, value in deviations.items()}},
    )
