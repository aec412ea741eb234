"""What a prompt takes before its first token is written, by arithmetic: bytes by kind, operations by part.

A prompt is computed in chunks: beside weights, what grows with it are keys and values and tables of angles; scores are
of sixteen pages at a time, and a clip is a piece of the encoder's windows. Nothing is run, so the full shape can be
asked about anywhere. Operations are those of products and convolutions, two for each multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from gristmill.model.generate.cache import GROUP, SCORES, Cache
from gristmill.model.generate.requests import Options
from gristmill.model.phi4.audio import PIECE
from gristmill.model.phi4.config import AudioConfig, ModelConfig, TextConfig
from gristmill.model.phi4.conformer import frames_after
from gristmill.model.phi4.multimodal import Multimodal


@dataclass(frozen=True)
class PromptEstimate:
    """Bytes: `weights`; `cache`, keys and values of a sequence of so many tokens; `angles`, the tables of LongRoPE;
    `scores` of a chunk and `encoder`, activations of a piece, about. Operations: `encoder_flops`, `linear_flops` of the
    decoder with one adapter, `attention_flops`, `head_flops`."""

    weights: int
    cache: int
    angles: int
    scores: int
    encoder: int
    encoder_flops: float
    linear_flops: float
    attention_flops: float
    head_flops: float

    @property
    def bytes(self) -> int:
        """Of all that there is at the same time."""
        return self.weights + self.cache + self.angles + max(self.scores, self.encoder)

    @property
    def flops(self) -> float:
        """Of all parts."""
        return self.encoder_flops + self.linear_flops + self.attention_flops + self.head_flops


def estimate_prompt(
    config: ModelConfig, tokens: int, frames: int, options: Options, dtype: torch.dtype
) -> PromptEstimate:
    """Of a prompt of so many tokens, those of a clip of `frames` among them (0: none), alone in an engine of `options`.
    Rows of the engine that rest are not counted: their linears are computed too."""
    text = config.text
    weights = _parameters(config) * dtype.itemsize
    chunk, page = options.prefill_chunk_size, options.block_size
    pages = -(-tokens // page)
    of_page = 4 * text.num_attention_heads * chunk * page
    scores = of_page * (pages if (1 + pages) * of_page <= SCORES else GROUP)  # one more: that of rows that rest
    rotary = int(text.head_dim * text.rope_parameters.partial_rotary_factor)
    windows = (
        0 if config.audio is None else -(-frames_after(frames, config.audio.time_reduction) // config.audio.window)
    )
    return PromptEstimate(
        weights=weights,
        cache=Cache.size(text, 1, pages * page, page, dtype),
        angles=2 * 2 * options.max_model_len * rotary * dtype.itemsize,
        scores=2 * scores,
        encoder=_encoder_bytes(config.audio, windows, dtype) if config.audio and frames else 0,
        encoder_flops=_encoder_flops(config.audio, frames, text.hidden_size) if config.audio and frames else 0.0,
        linear_flops=2.0 * tokens * _linear_weights(config),
        attention_flops=_attention_flops(text, tokens, chunk, page),
        head_flops=2.0 * options.max_num_partial_prefills * text.hidden_size * text.vocab_size,
    )


@lru_cache(maxsize=4)
def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Multimodal(config).parameters())


def _linear_weights(config: ModelConfig) -> int:
    """Of the decoder's products, with those of its largest adapter."""
    text = config.text
    heads = text.num_attention_heads + 2 * text.num_key_value_heads
    shapes = (
        (text.hidden_size, heads * text.head_dim),
        (text.num_attention_heads * text.head_dim, text.hidden_size),
        (text.hidden_size, 2 * text.intermediate_size),
        (text.intermediate_size, text.hidden_size),
    )
    rank = max((adapter.r for adapter in config.adapters), default=0)
    return text.num_hidden_layers * sum(into * out + rank * (into + out) for into, out in shapes)


def _attention_flops(text: TextConfig, tokens: int, chunk: int, page: int) -> float:
    """Whole pages up to each chunk; where scores are too many to hold, they are computed twice."""
    times = 0.0
    for start in range(0, tokens, chunk):
        pages = -(-(start + chunk) // page)
        products = 2 if 4 * (1 + pages) * page * text.num_attention_heads * chunk <= SCORES else 3
        times += products * pages * page * chunk
    return 2.0 * times * text.num_attention_heads * text.head_dim * text.num_hidden_layers


def _encoder_flops(config: AudioConfig, frames: int, out: int) -> float:
    """Of convolutions, blocks and a projector. A long clip's last window is filled up."""
    states = frames_after(frames, config.time_reduction)
    width = states if states <= config.window else config.window
    states = -(-states // width) * width
    channels, bands, steps = config.nemo_conv_channels, config.input_size, config.conv_steps
    places = [frames_after(frames, 2**k) * frames_after(bands, 2**k) for k in range(1, steps + 1)]
    front = places[0] * channels * 9 + sum(place * channels * (9 + channels) for place in places[1:])
    front += frames_after(frames, config.time_reduction) * channels * frames_after(bands, 2**steps) * config.hidden_size
    hidden, inner = config.hidden_size, config.intermediate_size
    feed_forward = 2 * 3 * hidden * inner
    convolution = hidden * (2 * hidden + config.kernel_size + hidden + hidden)
    block = feed_forward + 4 * hidden * hidden + 2 * width * hidden + convolution
    projector = hidden * out + out * out
    return 2.0 * (front + states * config.num_blocks * block + states * projector)


def _encoder_bytes(config: AudioConfig, windows: int, dtype: torch.dtype) -> int:
    """Of a piece of a few windows: the first convolution's output, before and after its ReLU, and the second's."""
    frames = min(windows, PIECE) * config.window * config.time_reduction
    first = config.nemo_conv_channels * frames // 2 * frames_after(config.input_size, 2)
    return dtype.itemsize * (2 * first + first // 4)
