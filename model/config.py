"""Shapes of the model: one frozen dataclass a part, and presets from a demo's `nano` to the paper's `multimodal`.

Nothing else differs between the presets: the same code builds a million parameters and 5.6 billion.
Source: config.json of microsoft/Phi-4-multimodal-instruct; arXiv 2503.01743, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

# Scaling of each rotary frequency beyond the original context (LongRoPE), as released; 1 everywhere within it.
_LONG_FACTOR = (
    1.0, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649,
    2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533,
    5.984965424, 6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651,
    14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03,
    32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
)  # fmt: skip


DTYPES = ("float32", "bfloat16", "float16")
"""What weights are kept in, as torch names it."""


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions. `fraction` of each head's dimensions rotate; the factors divide their frequencies (LongRoPE):
    `short_factor` in sequences of up to `original_positions` tokens, `long_factor` in longer ones. Empty factors: 1.
    `attention_factor` multiplies cos and sin; None: sqrt(1 + ln s / ln original_positions), s the stretch of context.
    """

    theta: float = 10_000.0
    fraction: float = 0.75
    original_positions: int = 4096
    max_positions: int = 131_072
    short_factor: tuple[float, ...] = (1.0,) * 48
    long_factor: tuple[float, ...] = _LONG_FACTOR
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        if not (self.theta > 0 and self.original_positions > 1 and self.max_positions > 0):
            at = f"theta={self.theta}, original_positions={self.original_positions}, max_positions={self.max_positions}"
            raise ValueError(f"rope: {at}: allowed are above 0, above 1, above 0")

    @property
    def scale(self) -> float:
        """What cos and sin are multiplied by, in short sequences too."""
        if self.attention_factor is not None:
            return self.attention_factor
        stretch = self.max_positions / self.original_positions
        if stretch <= 1 or not self.long_factor:
            return 1.0
        return math.sqrt(1 + math.log(stretch) / math.log(self.original_positions))


@dataclass(frozen=True)
class TextConfig:
    """The decoder: sizes are counts of channels, heads, layers, entries."""

    vocab: int = 200_064
    hidden: int = 3072
    layers: int = 32
    heads: int = 24
    kv_heads: int = 8
    inner: int = 8192
    eps: float = 1e-5
    tied: bool = True
    rope: RopeConfig = field(default_factory=RopeConfig)
    bos: int = 199_999
    pad: int = 199_999
    eos: tuple[int, ...] = (199_999, 200_020)

    def __post_init__(self) -> None:
        _divides(self, "heads", "hidden")
        _divides(self, "kv_heads", "heads")
        if self.rotary_dim % 2:
            raise ValueError(f"rope.fraction={self.rope.fraction}: {self.rotary_dim} of {self.head_dim} dims: not even")
        for name in ("short_factor", "long_factor"):
            factors = getattr(self.rope, name)
            if len(factors) not in (0, self.rotary_dim // 2):
                raise ValueError(f"rope.{name} has {len(factors)} entries: allowed are {self.rotary_dim // 2}, or none")
        for name, token in [("pad", self.pad), ("bos", self.bos), *(("eos", token) for token in self.eos)]:
            _in_vocab(name, token, self.vocab)

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def rotary_dim(self) -> int:
        """Rotating dimensions of a head."""
        return int(self.head_dim * self.rope.fraction)


@dataclass(frozen=True)
class VisionConfig:
    """The image encoder. `crop` and `patch` in pixels; `feature_layer` as an index of hidden states (-1: the last
    layer's output, -2: the one before). Layers after it, the last norm and the pooling head are in the released
    checkpoint and never reach the output: they are kept, frozen, so that a round trip loses nothing."""

    hidden: int = 1152
    inner: int = 4304
    layers: int = 27
    heads: int = 16
    crop: int = 448
    patch: int = 14
    eps: float = 1e-6
    feature_layer: int = -2
    token: int = 200_010

    def __post_init__(self) -> None:
        _divides(self, "heads", "hidden")
        if self.patch < 1 or self.crop < 1 or self.crop % (2 * self.patch):
            raise ValueError(f"crop={self.crop} must be a multiple of twice patch={self.patch}: patches pool 2x2")
        if not -self.layers - 1 <= self.feature_layer <= -1:
            raise ValueError(f"feature_layer={self.feature_layer}: allowed are {-self.layers - 1} to -1")

    @property
    def grid(self) -> int:
        """Patches along one side of a crop."""
        return self.crop // self.patch

    @property
    def used_layers(self) -> int:
        """Layers whose output reaches the language model."""
        return self.layers + 1 + self.feature_layer


@dataclass(frozen=True)
class AudioConfig:
    """The audio encoder: a convolutional front end (`conv_channels`, `reduction`x fewer frames), then a Conformer.
    `window`: encoder frames that see each other; `bias_distance`: beyond it, relative bias is that of the distance."""

    hidden: int = 1024
    inner: int = 1536
    layers: int = 24
    heads: int = 16
    mels: int = 80
    conv_channels: int = 1024
    kernel: int = 3
    reduction: int = 8
    window: int = 500
    bias_distance: int = 500
    eps: float = 1e-5
    token: int = 200_011

    def __post_init__(self) -> None:
        _divides(self, "heads", "hidden")
        if self.reduction < 2 or self.reduction & (self.reduction - 1):
            raise ValueError(f"reduction={self.reduction}: allowed are powers of two from 2")

    @property
    def conv_steps(self) -> int:
        """Convolutions that each halve time and frequency."""
        return self.reduction.bit_length() - 1


@dataclass(frozen=True)
class AdapterConfig:
    """Low-rank adapter on the four linears of every decoder layer: y = Wx + alpha/rank * B(A(dropout(x)))."""

    name: str
    rank: int
    alpha: float
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"adapter {self.name!r}: rank={self.rank}: allowed is 1 or more")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True)
class ModelConfig:
    """The whole model; `vision` and `audio` may be absent. `adapters` in the order of the checkpoint's folders.

    `hf_compat_rope`: one row beyond the original context switches all rows of the batch, as in the reference.
    `hf_compat_mask`: padded audio frames are only down-weighted, as in the reference. Both are for parity tests.
    """

    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig | None = None
    audio: AudioConfig | None = None
    adapters: tuple[AdapterConfig, ...] = ()
    hf_compat_rope: bool = False
    hf_compat_mask: bool = False

    def __post_init__(self) -> None:
        for name, part in (("vision", self.vision), ("audio", self.audio)):
            if part is not None:
                _in_vocab(f"{name}.token", part.token, self.text.vocab)
        if self.vision and self.audio and self.vision.token == self.audio.token:
            raise ValueError(f"vision.token and audio.token are both {self.audio.token}")
        names = [one.name for one in self.adapters]
        if len(set(names)) != len(names):
            raise ValueError(f"adapters: {names}: each name once")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file; `from_dict` reads them."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Raises ValueError that names an unknown or missing key."""
        made: ModelConfig = _built(cls, values, "model")
        return made


def _divides(config: Any, part: str, whole: str) -> None:
    a, b = getattr(config, part), getattr(config, whole)
    if a < 1 or b % a:
        raise ValueError(f"{type(config).__name__}: {whole}={b} is no multiple of {part}={a}")


def _in_vocab(name: str, token: int, vocab: int) -> None:
    if not 0 <= token < vocab:
        raise ValueError(f"{name}={token}: allowed are ids of the vocabulary, 0 to {vocab - 1}")


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


_NESTED: dict[str, type] = {"text": TextConfig, "vision": VisionConfig, "audio": AudioConfig, "rope": RopeConfig}
_OPTIONAL = ("vision", "audio")


def _built(cls: type, values: Any, path: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{path}: {values!r}: expected a section with {sorted(one.name for one in fields(cls))}")
    known = {one.name for one in fields(cls)}
    if wrong := sorted(set(values) - known):
        raise ValueError(f"{path}: unknown {wrong}; allowed are {sorted(known)}")
    made = {}
    for name, value in values.items():
        if name in _NESTED and not (value is None and name in _OPTIONAL):
            value = _built(_NESTED[name], value, f"{path}.{name}")
        elif name == "adapters":
            value = tuple(_built(AdapterConfig, one, f"{path}.adapters") for one in value)
        elif isinstance(value, list):
            value = tuple(value)
        made[name] = value
    try:
        return cls(**made)
    except TypeError as error:  # a field without a default is missing, or a value has another type
        raise ValueError(f"{path}: {error}") from error


_NANO_ROPE = RopeConfig(original_positions=4096, short_factor=(1.0,) * 12, long_factor=_LONG_FACTOR[::4])
_SMALL_ROPE = RopeConfig(original_positions=4096, short_factor=(1.0,) * 24, long_factor=_LONG_FACTOR[::2])
_NANO = TextConfig(
    vocab=2048, hidden=128, layers=4, heads=4, kv_heads=2, inner=352, rope=_NANO_ROPE, bos=0, pad=0, eos=(0, 3)
)
_SMALL = TextConfig(
    vocab=32_768, hidden=768, layers=12, heads=12, kv_heads=4, inner=2048, rope=_SMALL_ROPE, bos=0, pad=0, eos=(0, 3)
)
_ADAPTERS = (AdapterConfig("vision", 256, 512.0), AdapterConfig("speech", 320, 640.0, 0.01))

PRESETS = {
    "nano": ModelConfig(
        _NANO,
        VisionConfig(hidden=64, inner=160, layers=3, heads=4, crop=64, patch=8, token=11),
        AudioConfig(hidden=64, inner=96, layers=2, heads=4, conv_channels=32, window=500, bias_distance=500, token=12),
        (AdapterConfig("vision", 16, 32.0), AdapterConfig("speech", 16, 32.0, 0.01)),
    ),
    "small": ModelConfig(
        _SMALL,
        VisionConfig(hidden=384, inner=1536, layers=7, heads=6, crop=224, token=11),
        AudioConfig(hidden=256, inner=384, layers=8, heads=4, conv_channels=256, token=12),
        (AdapterConfig("vision", 64, 128.0), AdapterConfig("speech", 80, 160.0, 0.01)),
    ),
    "mini": ModelConfig(),
    "multimodal": ModelConfig(vision=VisionConfig(), audio=AudioConfig(), adapters=_ADAPTERS),
}
"""`nano` and `small` number their special tokens as `model.processing.bpe.train_tokenizer` does."""
