"""A long clip goes through the encoder a few windows at a time, to the same end as whole."""

from __future__ import annotations

import pytest
import torch

from gristmill.model.phi4 import audio
from gristmill.model.phi4.audio import AudioEncoder
from gristmill.model.phi4.conformer import frames_after
from tests.model.test_audio import WINDOWED, difference, mask_of, randomised


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[900], [900, 257, 60], [256, 255], [513, 64]])
def test_a_long_clip_is_computed_in_pieces(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, features = randomised(AudioEncoder(WINDOWED)), torch.randn(len(lengths), max(lengths), 16)
    mask = mask_of(lengths)
    sizes: list[int] = []
    encoder.embed.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[1]))
    pieces = encoder(features, mask), encoder(features)
    assert max(sizes) <= 8 * (audio.PIECE * WINDOWED.window + 1) and len(sizes) >= 2 * (max(lengths) // 257)
    monkeypatch.setattr(audio, "PIECE", 1_000)
    whole = encoder(features, mask), encoder(features)
    for number, length in enumerate(lengths):
        assert (
            difference(pieces[0][number, : frames_after(length, 8)], whole[0][number, : frames_after(length, 8)]) < 1e-5
        )
    assert difference(pieces[1], whole[1]) < 1e-5
