"""What a window costs: the operations of a step on it, from its counts and the sizes of the model.

By this a step's windows are dealt to ranks, and the share of the device's peak is told. Tokens attend within their
samples only, so squares of samples' lengths tell windows apart that have equally many tokens; crops cost the image
encoder the same each, whatever they show. Two operations a weight and token; a part whose weights are trained is gone
through three times (forward, and backward for its input and its weights), a frozen one that gradients flow through
twice, and one that only feeds others once. Adapters are small beside their linears and are left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gristmill.model.phi4.config import AudioConfig, ModelConfig, TextConfig, VisionConfig
from gristmill.model.phi4.conformer import frames_after
from gristmill.model.phi4.parts import Part
from gristmill.model.shards.counts import Counts


@dataclass(frozen=True)
class Cost:
    """Operations: of a token, of a pair of tokens of one sample (each sees on average half of it), of a token to learn,
    whose logits are computed, of a crop, of a frame of log-Mel."""

    token: float
    pair: float
    target: float
    crop: float = 0.0
    frame: float = 0.0

    @classmethod
    def of(cls, config: ModelConfig, trained: Collection[Part], *, decodes: bool = True) -> Cost:
        """Of a step that trains these parts. `decodes`: whether the language model has a part in it."""
        decoder = 0 if not decodes else 3 if Part.LANGUAGE in trained else 2
        token, pair, target = (decoder * part for part in _of_text(config.text))
        crop = frame = 0.0
        if config.vision is not None:
            encoder, projector = _of_crop(config.vision, config.text.hidden_size)
            crop = _passes(encoder, projector, Part.VISION_ENCODER, {Part.VISION_PROJECTOR}, trained)
        if config.audio is not None:
            encoder, projector = _of_frame(config.audio, config.text.hidden_size)
            projectors = {Part.AUDIO_PROJECTOR_SPEECH, Part.AUDIO_PROJECTOR_VISION}
            frame = _passes(encoder, projector, Part.AUDIO_ENCODER, projectors, trained)
        return cls(token, pair, target, crop, frame)

    def window(self, counts: Counts) -> float:
        """Of a packed window."""
        weights = (self.token, self.pair, self.target, self.crop, self.frame)
        return sum(weight * count for weight, count in zip(weights, counts, strict=True))


def _passes(
    encoder: float, projector: float, part: Part, projectors: Collection[Part], trained: Collection[Part]
) -> float:
    """Operations of an encoder and a projector, as often as they are gone through."""
    of_encoder = 3 if part in trained else 1
    of_projector = 3 if set(projectors) & set(trained) else min(of_encoder, 2)
    return of_encoder * encoder + of_projector * projector


def _of_text(config: TextConfig) -> tuple[float, float, float]:
    """Of a token, a pair and a target, forward."""
    hidden, heads = config.hidden_size, config.num_attention_heads + 2 * config.num_key_value_heads
    weights = hidden * (heads * config.head_dim + hidden + 3 * config.intermediate_size)
    layers = config.num_hidden_layers
    return 2.0 * weights * layers, 2.0 * hidden * layers, 2.0 * hidden * config.vocab_size


def _of_crop(config: VisionConfig, out: int) -> tuple[float, float]:
    """Of a crop, all of its patches real: in the encoder, and in the projector with the separators of its rows."""
    patches, hidden, side = config.grid**2, config.hidden_size, config.grid // 2
    layer = 4 * hidden**2 + 2 * hidden * config.intermediate_size
    layers = config.used_layers * (2.0 * layer * patches + 4.0 * hidden * patches**2)
    kernels = 2.0 * 3 * config.patch_size**2 * hidden * patches
    return layers + kernels, _of_projected(hidden, out) * side * (side + 1)


def _of_frame(config: AudioConfig, out: int) -> tuple[float, float]:
    """Of a frame of log-Mel, in the encoder and the projector. It attends to a window of frames, as in a long clip."""
    channels, hidden = config.nemo_conv_channels, config.hidden_size
    front = 0.0
    for step in range(1, config.conv_steps + 1):
        # The first convolution is from one channel; further ones are depthwise (9 weights) and pointwise over channels.
        weights = channels * (9 if step == 1 else 9 + channels)
        front += 2.0 * weights * frames_after(config.input_size, 2**step) / 2**step
    last = 2.0 * channels * frames_after(config.input_size, config.time_reduction) * hidden
    # Two feed-forward modules with a gate; attention, and as many weights in the convolution's four pointwise ones.
    block = 6 * hidden * config.intermediate_size + 8 * hidden**2 + config.kernel_size * hidden
    blocks = config.num_blocks * (2.0 * block + 4.0 * hidden * config.window)
    return front + (last + blocks) / config.time_reduction, _of_projected(hidden, out) / config.time_reduction


def _of_projected(hidden: int, out: int) -> float:
    """Of a vector that goes through a projector."""
    return 2.0 * (hidden * out + out**2)
