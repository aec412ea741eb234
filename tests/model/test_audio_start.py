"""What a new encoder of sound starts from: values by which a clip arrives where something can be learned of it."""

from __future__ import annotations

import pytest
import torch

from gristmill.model.phi4.audio import AudioEncoder
from gristmill.model.phi4.presets import PRESETS


def test_start_values() -> None:
    config = PRESETS["nano"].audio
    assert config is not None
    encoder = AudioEncoder(config)
    for name, tensor in encoder.state_dict().items():
        if "layer_norm" in name or name.startswith("encoder_embedding"):
            ones = name.endswith(("weight", "invstd"))
            assert bool((tensor == (1 if ones else 0)).all()), name
        elif name.endswith("bias_values.weight"):
            assert abs(float(tensor.std()) - 0.02) < 0.002, name
        elif tensor.numel() > 1000:
            variance = (2 if ".conv." in name and tensor.ndim == 4 else 1) / tensor[0].numel()
            assert float(tensor.std()) == pytest.approx(variance**0.5, rel=0.1), name
        elif name.endswith((".bias", ".b1", ".b2")):
            assert not tensor.any(), name


@torch.no_grad()
@pytest.mark.parametrize("preset", ["nano", "small"])
def test_a_clip_keeps_its_size_on_its_way_to_the_first_norm(preset: str) -> None:
    """With the reference's deviation of 0.02 for all weights 1e-5 of it arrives, below the norm's epsilon."""
    config = PRESETS[preset].audio
    assert config is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = AudioEncoder(config)
        frames = encoder.embed(torch.randn(2, 160, 80), None)
    assert 0.3 < float(frames.std()) < 3
