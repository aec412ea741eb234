"""Shapes of the model: one frozen dataclass a part; defaults are the released Phi-4-multimodal.

Fields are called as in transformers' and peft's configs. `model.phi4.presets` has smaller ones: the same code builds a
million parameters and 5.6 billion.
Source: config.json of microsoft/Phi-4-multimodal-instruct; arXiv 2503.01743, section 2; transformers 5.23.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

LONG_FACTOR = (
    1.0, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649,
    2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533,
    5.984965424, 6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651,
    14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03,
    32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
)  # fmt: skip
"""What divides each rotary frequency beyond the original context (LongRoPE), as released; 1 everywhere within it."""


DTYPES = ("float32", "bfloat16", "float16")
"""What weights are kept in, as torch names it."""


@dataclass(frozen=True)
class RopeParameters:
    """Rotary positions: `partial_rotary_factor` of each head's dimensions rotate; the factors, one a pair of them,
    divide their frequencies (LongRoPE): `short_factor` in sequences within the original context, `long_factor` in
    longer ones; empty: 1. `attention_factor` multiplies cos and sin; None: `TextConfig.rope_scale` works it out."""

    rope_theta: float = 10_000.0
    partial_rotary_factor: float = 0.75
    short_factor: tuple[float, ...] = (1.0,) * 48
    long_factor: tuple[float, ...] = LONG_FACTOR
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        if not self.rope_theta > 0:
            raise ValueError(f"rope_parameters: rope_theta={self.rope_theta}: allowed is above 0")


@dataclass(frozen=True)
class TextConfig:
    """The decoder. Sizes are counts of channels, heads, layers, entries; `max_position_embeddings` is the context in
    tokens, `original_max_position_embeddings` the one before LongRoPE stretched it. Source: `Phi3Config`."""

    vocab_size: int = 200_064
    hidden_size: int = 3072
    num_hidden_layers: int = 32
    num_attention_heads: int = 24
    num_key_value_heads: int = 8
    intermediate_size: int = 8192
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 131_072
    original_max_position_embeddings: int = 4096
    rope_parameters: RopeParameters = field(default_factory=RopeParameters)
    bos_token_id: int = 199_999
    pad_token_id: int = 199_999
    eos_token_id: tuple[int, ...] = (199_999, 200_020)

    def __post_init__(self) -> None:
        # What torch would refuse in the middle of a forward, or not at all, is refused here, by the name of its key.
        _divides(self, "num_attention_heads", "hidden_size")
        _divides(self, "num_key_value_heads", "num_attention_heads")
        for name, least in (("max_position_embeddings", 1), ("original_max_position_embeddings", 2)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}={value}: allowed is {least} or more")
        rope = self.rope_parameters
        if self.rotary_dim % 2:
            raise ValueError(
                f"rope_parameters.partial_rotary_factor={rope.partial_rotary_factor}: {self.rotary_dim} of "
                f"{self.head_dim} dims: not even"
            )
        for name in ("short_factor", "long_factor"):
            if (count := len(getattr(rope, name))) not in (0, self.rotary_dim // 2):
                raise ValueError(
                    f"rope_parameters.{name} has {count} entries: allowed are {self.rotary_dim // 2}, or none"
                )
        tokens = [("pad_token_id", self.pad_token_id), ("bos_token_id", self.bos_token_id)]
        for name, token in [*tokens, *(("eos_token_id", token) for token in self.eos_token_id)]:
            _in_vocab(name, token, self.vocab_size)

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that rotate."""
        return int(self.head_dim * self.rope_parameters.partial_rotary_factor)

    @property
    def rope_scale(self) -> float:
        """What cos and sin are multiplied by, in short sequences too: sqrt(1 + ln s / ln L), L the original context and
        s how many times it was stretched (LongRoPE, arXiv 2402.13753, section 3.2)."""
        rope = self.rope_parameters
        if rope.attention_factor is not None:
            return rope.attention_factor
        stretch = self.max_position_embeddings / self.original_max_position_embeddings
        if stretch <= 1 or not rope.long_factor:
            return 1.0
        return math.sqrt(1 + math.log(stretch) / math.log(self.original_max_position_embeddings))


@dataclass(frozen=True)
class VisionConfig:
    """The image encoder. `crop_size` and `patch_size` in pixels; `feature_layer` as an index of hidden states (-1: the
    last layer's output, -2: the one before). Layers after it, the last norm and the pooling head are in the released
    checkpoint and never reach the output: they are kept, frozen, so that a round trip loses nothing.
    Source: `Phi4MultimodalVisionConfig`."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    crop_size: int = 448
    patch_size: int = 14
    layer_norm_eps: float = 1e-6
    feature_layer: int = -2
    image_token_id: int = 200_010

    def __post_init__(self) -> None:
        _divides(self, "num_attention_heads", "hidden_size")
        crop, patch = self.crop_size, self.patch_size
        if patch < 1 or crop < 1 or crop % (2 * patch):
            raise ValueError(f"crop_size={crop} must be a multiple of twice patch_size={patch}: patches pool 2x2")
        first = -self.num_hidden_layers - 1
        if not first <= self.feature_layer <= -1:
            raise ValueError(f"feature_layer={self.feature_layer}: allowed are {first} to -1")

    @property
    def token_id(self) -> int:
        """The token that stands for each embedding of an image."""
        return self.image_token_id

    @property
    def grid(self) -> int:
        """Patches along one side of a crop."""
        return self.crop_size // self.patch_size

    @property
    def used_layers(self) -> int:
        """Layers whose output reaches the language model."""
        return self.num_hidden_layers + 1 + self.feature_layer


@dataclass(frozen=True)
class AudioConfig:
    """The audio encoder: a convolutional front end over `input_size` mel bands (`nemo_conv_channels`, `time_reduction`x
    fewer frames), then `num_blocks` of a Conformer. `window`: encoder frames that see each other (a constant in the
    reference's code); `bias_max_distance`: beyond it, relative bias is that of the distance.
    Source: `Phi4MultimodalAudioConfig`."""

    hidden_size: int = 1024
    intermediate_size: int = 1536
    num_blocks: int = 24
    num_attention_heads: int = 16
    input_size: int = 80
    nemo_conv_channels: int = 1024
    kernel_size: int = 3
    time_reduction: int = 8
    window: int = 500
    bias_max_distance: int = 500
    layer_norm_eps: float = 1e-5
    audio_token_id: int = 200_011

    def __post_init__(self) -> None:
        _divides(self, "num_attention_heads", "hidden_size")
        if self.time_reduction < 2 or self.time_reduction & (self.time_reduction - 1):
            raise ValueError(f"time_reduction={self.time_reduction}: allowed are powers of two from 2")

    @property
    def token_id(self) -> int:
        """The token that stands for each embedding of a clip."""
        return self.audio_token_id

    @property
    def conv_steps(self) -> int:
        """Convolutions that each halve time and frequency."""
        return self.time_reduction.bit_length() - 1


@dataclass(frozen=True)
class LoraConfig:
    """A LoRA adapter on the four linears of every decoder layer: y = Wx + lora_alpha/r * B(A(dropout(x))).
    Source: arXiv 2106.09685; names are those of peft's `LoraConfig`."""

    name: str
    r: int
    lora_alpha: float
    lora_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError(f"adapter {self.name!r}: r={self.r}: allowed is 1 or more")

    @property
    def scaling(self) -> float:
        """What the adapter's output is multiplied by."""
        return self.lora_alpha / self.r


@dataclass(frozen=True)
class ModelConfig:
    """The whole model; `vision` and `audio` may be absent. `adapters` in the order of the checkpoint's folders.

    `hf_compat_rope`: one row beyond the original context switches all rows of the batch, as in the reference.
    `hf_compat_mask`: padded audio frames are only down-weighted, as in the reference. Both are for parity tests.
    """

    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig | None = None
    audio: AudioConfig | None = None
    adapters: tuple[LoraConfig, ...] = ()
    hf_compat_rope: bool = False
    hf_compat_mask: bool = False

    def __post_init__(self) -> None:
        if self.vision is not None:
            _in_vocab("vision.image_token_id", self.vision.image_token_id, self.text.vocab_size)
        if self.audio is not None:
            _in_vocab("audio.audio_token_id", self.audio.audio_token_id, self.text.vocab_size)
        if self.vision and self.audio and self.vision.image_token_id == self.audio.audio_token_id:
            raise ValueError(f"image_token_id and audio_token_id are both {self.audio.audio_token_id}")
        names = [adapter.name for adapter in self.adapters]
        if len(set(names)) != len(names):
            raise ValueError(f"adapters: {names}: each name once")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file; `from_dict` reads them."""
        values: dict[str, Any] = _plain(self)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Raises ValueError that names an unknown or missing key."""
        config: ModelConfig = _built(cls, values, "model")
        return config


def _divides(config: Any, part: str, whole: str) -> None:
    a, b = getattr(config, part), getattr(config, whole)
    if a < 1 or b % a:
        raise ValueError(f"{type(config).__name__}: {whole}={b} is no multiple of {part}={a}")


def _in_vocab(name: str, token: int, vocab: int) -> None:
    if not 0 <= token < vocab:
        raise ValueError(f"{name}={token}: allowed are ids of the vocabulary, 0 to {vocab - 1}")


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


_NESTED: dict[str, type] = {
    "text": TextConfig,
    "vision": VisionConfig,
    "audio": AudioConfig,
    "rope_parameters": RopeParameters,
}
_OPTIONAL = ("vision", "audio")


def _built(cls: type, values: Any, path: str) -> Any:
    known = {field.name for field in fields(cls)}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: {values!r}: expected a section with {sorted(known)}")
    if wrong := sorted(set(values) - known):
        raise ValueError(f"{path}: unknown {wrong}; allowed are {sorted(known)}")
    arguments = {}
    for name, value in values.items():
        if name in _NESTED and not (value is None and name in _OPTIONAL):
            value = _built(_NESTED[name], value, f"{path}.{name}")
        elif name == "adapters":
            value = tuple(_built(LoraConfig, adapter, f"{path}.adapters") for adapter in value)
        elif isinstance(value, list):
            value = tuple(value)
        arguments[name] = value
    try:
        return cls(**arguments)
    except TypeError as error:  # a field without a default is missing, or a value has another type
        raise ValueError(f"{path}: {error}") from error
