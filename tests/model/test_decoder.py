"""The decoder against transformers' own; padding, packing and LongRoPE's switch, each sample as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from models import ROPE, TEXT, enlivened, ids, text_model
from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM
from transformers.models.phi3.modeling_phi3 import Phi3RMSNorm

from gristmill.model.phi4.config import ModelConfig, TextConfig
from gristmill.model.phi4.decoder import RMSNorm
from gristmill.model.phi4.multimodal import Multimodal

pytestmark = pytest.mark.usefixtures("one_thread")
SWITCH = TEXT.original_max_position_embeddings
CLOSE = {"atol": 1e-5, "rtol": 0}


def reference(model: Multimodal) -> Phi3ForCausalLM:
    """Of transformers, with the same weights."""
    text = model.config.text
    rope = {
        "rope_type": "longrope",
        "rope_theta": text.rope_parameters.rope_theta,
        "partial_rotary_factor": text.rope_parameters.partial_rotary_factor,
        "short_factor": list(text.rope_parameters.short_factor),
        "long_factor": list(text.rope_parameters.long_factor),
        "original_max_position_embeddings": text.original_max_position_embeddings,
    }
    config = Phi3Config(
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        num_key_value_heads=text.num_key_value_heads,
        rms_norm_eps=text.rms_norm_eps,
        max_position_embeddings=text.max_position_embeddings,
        original_max_position_embeddings=text.original_max_position_embeddings,
        tie_word_embeddings=text.tie_word_embeddings,
        rope_parameters=rope,
        pad_token_id=text.pad_token_id,
        bos_token_id=text.bos_token_id,
        eos_token_id=list(text.eos_token_id),
    )
    phi3 = Phi3ForCausalLM(config).eval()
    values = {
        f"model.{name}": tensor for name, tensor in model.language.state_dict().items() if ".adapters." not in name
    }
    head = values.pop("model.lm_head.weight", values["model.embed_tokens.weight"])
    phi3.load_state_dict({**values, "lm_head.weight": head})
    return phi3


@pytest.fixture(scope="module")
def model() -> Multimodal:
    return text_model(adapters=())


@pytest.fixture(scope="module")
def phi3(model: Multimodal) -> Phi3ForCausalLM:
    return reference(model)


def like_the_reference(model: Multimodal) -> Multimodal:
    """The same weights, with the switch for the whole batch."""
    copy = Multimodal(replace(model.config, hf_compat_rope=True)).eval()
    copy.load_state_dict(model.state_dict())
    return copy


@torch.no_grad()
def alone(model: Multimodal, row: Tensor | Sequence[int]) -> Tensor:
    return model(torch.as_tensor(row)[None]).logits[0]


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 17, SWITCH - 1, SWITCH, SWITCH + 1, 200])
def test_logits_are_transformers_own(model: Multimodal, phi3: Phi3ForCausalLM, length: int) -> None:
    rows = ids(2, length, seed=length)
    torch.testing.assert_close(model(rows).logits, phi3(rows).logits, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 6},
        {"num_key_value_heads": 1},
        {"rms_norm_eps": 1e-2},
        {
            "rope_parameters": replace(
                ROPE, partial_rotary_factor=1.0, short_factor=(1.0, 1.5, 2.0, 3.0), long_factor=(1.0, 2.0, 5.0, 9.0)
            )
        },
        {
            "rope_parameters": replace(
                ROPE, partial_rotary_factor=0.5, rope_theta=500.0, short_factor=(1.0, 1.5), long_factor=(1.0, 2.0)
            )
        },
        {"max_position_embeddings": SWITCH},
    ],
)
def test_other_shapes_are_transformers_own_too(changes: dict[str, object]) -> None:
    model = text_model(adapters=(), **changes)
    other = reference(model)
    for length in (40, SWITCH) if "max_position_embeddings" in changes else (40, 90):
        rows = ids(2, length)
        torch.testing.assert_close(model(rows).logits, other(rows).logits, **CLOSE)


@torch.no_grad()
def test_a_long_row_switches_its_batch_in_the_reference_and_itself_alone_here(
    model: Multimodal, phi3: Phi3ForCausalLM
) -> None:
    rows, real = ids(3, 100), torch.ones(3, 100, dtype=torch.int64)
    for i, length in enumerate((30, 100, SWITCH)):
        real[i, length:] = 0
    compat, logits, expected = like_the_reference(model)(rows, real).logits, model(rows, real).logits, phi3(rows, real)
    for i, length in enumerate((30, 100, SWITCH)):
        torch.testing.assert_close(compat[i, :length], expected.logits[i, :length], **CLOSE)
        torch.testing.assert_close(logits[i, :length], alone(model, rows[i, :length]), **CLOSE)
    assert (compat[0, :30] - logits[0, :30]).abs().max() > 0.01, "the switch is seen"


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_as_alone(model: Multimodal, side: str) -> None:
    lengths = (1, 7, 33, SWITCH, SWITCH + 1, 90)
    rows, real = ids(6, 90, seed=2), torch.zeros(6, 90, dtype=torch.int64)
    spans = [slice(90 - n, 90) if side == "left" else slice(0, n) for n in lengths]
    for i, span in enumerate(spans):
        real[i, span] = 1
    logits = model(rows, real).logits
    assert logits.isfinite().all(), "padded places too"
    for i, span in enumerate(spans):
        torch.testing.assert_close(logits[i, span], alone(model, rows[i, span]), atol=3e-5, rtol=0)


@torch.no_grad()
def test_left_padded_rows_are_transformers_own(model: Multimodal, phi3: Phi3ForCausalLM) -> None:
    rows, real = ids(3, 40), torch.ones(3, 40, dtype=torch.int64)
    real[0, :20] = real[2, :39] = 0
    logits, expected = model(rows, real).logits, phi3(rows, real).logits
    torch.testing.assert_close(logits[real.bool()], expected[real.bool()], **CLOSE)


@torch.no_grad()
def test_packed_samples_are_as_alone(model: Multimodal) -> None:
    """One is longer than the original context; some lengths share a group and some do not."""
    layout = [(5, 16, 1, SWITCH + 9, 20), (SWITCH, 30, 21), (115,)]
    rows = ids(3, 115, seed=4)
    assert {sum(row) for row in layout} == {115}
    segment_ids = torch.tensor([[i for i, n in enumerate(row) for _ in range(n)] for row in layout])
    packed = model(rows, segment_ids=segment_ids).logits
    for i, lengths in enumerate(layout):
        for sample, logits in zip(rows[i].split(lengths), packed[i].split(lengths), strict=True):
            torch.testing.assert_close(logits, alone(model, sample), **CLOSE)


@torch.no_grad()
def test_packed_rows_may_be_padded_and_number_their_samples_as_they_like(model: Multimodal) -> None:
    rows, real = ids(2, 40), torch.ones(2, 40, dtype=torch.int64)
    segment_ids = torch.tensor([[7] * 10 + [3] * 20 + [-1] * 10, [1] * 15 + [2] * 15 + [1] * 10])
    real[0, 30:] = 0
    logits = model(rows, real, segment_ids=segment_ids).logits
    assert logits.isfinite().all()
    for row, span in [(0, slice(0, 10)), (0, slice(10, 30)), (1, slice(0, 15)), (1, slice(15, 30)), (1, slice(30, 40))]:
        torch.testing.assert_close(logits[row, span], alone(model, rows[row, span]), **CLOSE)


@torch.no_grad()
def test_positions_may_be_given(model: Multimodal) -> None:
    rows = ids(2, 20)
    moved = model(rows, position_ids=torch.arange(20)[None] + 11).logits
    torch.testing.assert_close(moved, model(rows).logits, atol=3e-5, rtol=0)  # rotary ones are relative
    gaps = model(rows, position_ids=torch.arange(0, 40, 2)[None]).logits
    assert (gaps - moved).abs().max() > 0.01


def test_gradients_flow_through_packing_as_alone(model: Multimodal) -> None:
    rows, segment_ids = ids(1, 30), torch.tensor([[0] * 12 + [1] * 18])
    weight = torch.randn(30, 300) / 30

    def gradient(loss: Tensor) -> Tensor:
        model.zero_grad()
        loss.backward()
        gradient = model.language.layers[0].self_attn.qkv_proj.weight.grad
        assert gradient is not None
        return gradient.clone()

    packed = gradient((model(rows, segment_ids=segment_ids).logits[0] * weight).sum())
    apart = torch.cat([model(rows[:, :12]).logits[0], model(rows[:, 12:]).logits[0]])
    torch.testing.assert_close(packed, gradient((apart * weight).sum()), atol=1e-4, rtol=1e-4)
    model.zero_grad()


@torch.no_grad()
@pytest.mark.parametrize("length", [40, 100])
def test_bfloat16_is_close_to_float32(model: Multimodal, length: int) -> None:
    rows = ids(2, length)
    half = Multimodal(model.config).eval()
    half.load_state_dict(model.state_dict())
    logits, expected = half.bfloat16()(rows).logits, model(rows).logits
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().mean() < 0.02 * expected.std()


def test_rms_norm_casts_before_the_weight_as_the_reference_does() -> None:
    x, weight = (torch.randn(64, 48) * 30).bfloat16(), torch.randn(48).bfloat16()
    norm, reference_norm = RMSNorm(48, 1e-5).bfloat16(), Phi3RMSNorm(48, 1e-5).bfloat16()
    norm.weight.data[:] = reference_norm.weight.data[:] = weight
    wide = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5)
    assert torch.equal(norm(x), reference_norm(x)) and torch.equal(norm(x), weight * wide.bfloat16())
    assert not torch.equal(norm(x), (weight.float() * wide).bfloat16()), "the order is seen"


def test_a_future_token_changes_nothing_before_it(model: Multimodal) -> None:
    rows = ids(1, 30)
    other = rows.clone()
    other[0, 20] = 5
    changed = (model(rows).logits - model(other).logits).abs().amax((0, -1)) > 0
    assert changed.tolist() == [False] * 20 + [True] * 10


def test_the_released_positions_are_transformers_own() -> None:
    """Its 48 factors, on one layer of narrow heads of 128."""
    text = TextConfig(
        vocab_size=300,
        hidden_size=256,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=(0,),
    )
    model = enlivened(ModelConfig(text), 0)
    assert model.config.text.rope_parameters == TextConfig().rope_parameters
    rows = ids(1, 4200)
    with torch.no_grad():
        for length in (4096, 4097):
            logits, expected = model(rows[:, :length]).logits, reference(model)(rows[:, :length]).logits
            torch.testing.assert_close(logits, expected, atol=3e-5, rtol=0)


def test_the_config_of_these_tests_has_what_matters() -> None:
    assert (
        TEXT.num_attention_heads != TEXT.num_key_value_heads
        and TEXT.rotary_dim < TEXT.head_dim
        and len(set(ROPE.long_factor)) == 3
    )
