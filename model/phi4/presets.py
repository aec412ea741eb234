"""Presets from a demo's `nano` to the paper's `multimodal`: they differ in sizes alone, and in no line of code.

`nano` and `small` keep the proportions of the release (heads of 32 and 64 channels, three quarters of which rotate) and
number their special tokens as `model.processing.tokenizer.bpe.train_tokenizer` does. In `nano-vision` a picture of 64
pixels is four crops, so that what an encoder reads in each is learned in a minute; `nano-speech` is that one with ears,
whose encoder is larger than that of `nano`. `nano-math` reads alone, and is so small that hundreds of thousands of its
samples are drawn in minutes.
Source: arXiv 2503.01743, section 2, for `mini` and `multimodal`.
"""

from __future__ import annotations

from gristmill.model.phi4.config import (
    LONG_FACTOR,
    AudioConfig,
    LoraConfig,
    ModelConfig,
    RopeParameters,
    TextConfig,
    VisionConfig,
)

_NANO = TextConfig(
    vocab_size=2048,
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=352,
    rope_parameters=RopeParameters(short_factor=(1.0,) * 12, long_factor=LONG_FACTOR[::4]),
    bos_token_id=0,
    pad_token_id=0,
    eos_token_id=(0, 3),
)
_NANO_MATH = TextConfig(
    vocab_size=512,
    hidden_size=96,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=3,
    intermediate_size=256,
    rope_parameters=RopeParameters(short_factor=(1.0,) * 12, long_factor=LONG_FACTOR[::4]),
    bos_token_id=0,
    pad_token_id=0,
    eos_token_id=(0, 3),
)
_SMALL = TextConfig(
    vocab_size=32_768,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=4,
    intermediate_size=2048,
    rope_parameters=RopeParameters(short_factor=(1.0,) * 24, long_factor=LONG_FACTOR[::2]),
    bos_token_id=0,
    pad_token_id=0,
    eos_token_id=(0, 3),
)
_NANO_VISION = VisionConfig(
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    crop_size=64,
    patch_size=8,
    image_token_id=11,
)
_NANO_CROPS = VisionConfig(
    hidden_size=96,
    intermediate_size=192,
    num_hidden_layers=3,
    num_attention_heads=4,
    crop_size=32,
    patch_size=8,
    image_token_id=11,
)
_NANO_AUDIO = AudioConfig(
    hidden_size=64,
    intermediate_size=96,
    num_blocks=2,
    num_attention_heads=4,
    nemo_conv_channels=32,
    audio_token_id=12,
)
_NANO_CLIPS = AudioConfig(
    hidden_size=128,
    intermediate_size=192,
    num_blocks=2,
    num_attention_heads=4,
    nemo_conv_channels=32,
    audio_token_id=12,
)
_SMALL_VISION = VisionConfig(
    hidden_size=384,
    intermediate_size=1536,
    num_hidden_layers=7,
    num_attention_heads=6,
    crop_size=224,
    image_token_id=11,
)
_SMALL_AUDIO = AudioConfig(
    hidden_size=256,
    intermediate_size=384,
    num_blocks=8,
    num_attention_heads=4,
    nemo_conv_channels=256,
    audio_token_id=12,
)


def _adapters(vision_rank: int, speech_rank: int) -> tuple[LoraConfig, LoraConfig]:
    """As released, but for their ranks: alpha is twice the rank, and only speech has dropout."""
    return (
        LoraConfig("vision", vision_rank, 2.0 * vision_rank),
        LoraConfig("speech", speech_rank, 2.0 * speech_rank, 0.01),
    )


PRESETS = {
    "nano": ModelConfig(_NANO, _NANO_VISION, _NANO_AUDIO, _adapters(16, 16)),
    "nano-math": ModelConfig(_NANO_MATH),
    "nano-vision": ModelConfig(_NANO, _NANO_CROPS, None, _adapters(16, 16)[:1]),
    "nano-speech": ModelConfig(_NANO, _NANO_CROPS, _NANO_CLIPS, _adapters(16, 16)),
    "small": ModelConfig(_SMALL, _SMALL_VISION, _SMALL_AUDIO, _adapters(64, 80)),
    "mini": ModelConfig(),
    "multimodal": ModelConfig(TextConfig(), VisionConfig(), AudioConfig(), _adapters(256, 320)),
}
