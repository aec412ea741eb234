"""What the encoder of sound is made of: a front end of convolutions, and Conformer blocks with their relative bias.

A block is half a feed-forward, attention with relative bias, a causal convolution, half a feed-forward. Blocks work on
rows of one window; which frames are padding is the encoder's business (`audio.py`), and arrives in the bias. The names
of modules are those of the released checkpoint, so that its keys load without a table.
Chunked attention (`chunk_size` above 0 in the reference) is not implemented: the release has -1, all of a window.
Source: arXiv 2005.08100 (Conformer); arXiv 2503.01743, section 2.2; parity with transformers' phi4_multimodal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.model.phi4.config import AudioConfig

INIT_STD = 0.02
Count = TypeVar("Count", int, Tensor)


def init_weights(module: nn.Module) -> None:
    """Start values, for `module.apply`: linears and convolutions keep the size of what goes through them (normal, of
    variance 1 over the inputs of an output, twice that for those of the front end, which end in ReLU); embeddings are
    normal with standard deviation 0.02; biases are 0, layer norms stay 1 and 0.

    The reference has 0.02 for all, which suits what is loaded from a checkpoint: kernels of 9 weights would make a
    clip a hundred thousand times smaller before the first norm, and nothing is learned for hundreds of steps.
    Source: arXiv 1502.01852, section 2.2.
    """
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if isinstance(module, nn.Conv2d) else "linear")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)


def frames_after(frames: Count, reduction: int) -> Count:
    """Frames (or frequencies) that `reduction` leaves of `frames`, rounded up."""
    return -(-frames // reduction)


def _zero_beyond(x: Tensor, length_B: Tensor, dim: int) -> Tensor:
    """`x` [B, ...] with zeros from `length_B` on along `dim`: filled, not multiplied, so that NaN goes too."""
    at_T = torch.arange(x.shape[dim], device=x.device)
    beyond_BT = at_T >= length_B[:, None]
    shape = [1] * x.ndim
    shape[0], shape[dim] = beyond_BT.shape
    return x.masked_fill(beyond_BT.view(shape), 0.0)


class Normalise(nn.Module):
    """Log-Mel values to mean 0 and deviation 1 of the training data; buffers of the checkpoint, never trained."""

    global_mean: Tensor
    global_invstd: Tensor

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.register_buffer("global_mean", torch.zeros(config.input_size))
        self.register_buffer("global_invstd", torch.ones(config.input_size))

    def scale_to(self, mean: Sequence[float], invstd: Sequence[float]) -> None:
        """Sets both, a value for each band."""
        for buffer, values in ((self.global_mean, mean), (self.global_invstd, invstd)):
            buffer.copy_(torch.tensor(values, dtype=torch.float64))

    def forward(self, x_BTM: Tensor) -> Tensor:
        """[B, T, mels], in natural logarithms of power, -> the same shape."""
        return (x_BTM - self.global_mean) * self.global_invstd


class Subsampling(nn.Module):
    """The convolutional front end: each step halves time and frequency, rounding up; then a linear over channels and
    frequencies. The first step is a plain convolution, further ones are depthwise and pointwise; each ends in ReLU."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        channels = config.nemo_conv_channels
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.ReLU()]
        for _ in range(config.conv_steps - 1):
            layers += [
                nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels),
                nn.Conv2d(channels, channels, 1),
                nn.ReLU(),
            ]
        self.conv = nn.Sequential(*layers)
        self.out = nn.Linear(channels * frames_after(config.input_size, config.time_reduction), config.hidden_size)

    def forward(self, x_BTM: Tensor, length_B: Tensor | None) -> Tensor:
        """Frames [B, T, mels] -> [B, ceil(T/reduction), D]. With `length_B`, frames of each clip, the rest is zero:
        before, between and after the convolutions. None: every frame counts."""
        if length_B is not None:
            x_BTM = _zero_beyond(x_BTM, length_B, dim=1)
        x_BCTF = x_BTM[:, None]
        for layer in self.conv:
            # The next convolution would see the bias of padded frames where a clip alone ends in zeros. Before ReLU,
            # which keeps zeros and saves its output for backward: after it, a second copy would be kept.
            if length_B is not None and isinstance(layer, nn.ReLU):
                length_B = frames_after(length_B, 2)
                x_BCTF = _zero_beyond(x_BCTF, length_B, dim=2)
            x_BCTF = layer(x_BCTF)
        x_BTD = self.out(x_BCTF.transpose(1, 2).flatten(-2))
        # the padding of a clip's last window is zeros, not the linear's bias
        return x_BTD if length_B is None else _zero_beyond(x_BTD, length_B, dim=1)


class RelativeBias(nn.Module):
    """A learned score for each distance between frames and each head; all blocks share it."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.distance = config.bias_max_distance
        self.bias_values = nn.Embedding(2 * config.bias_max_distance, config.num_attention_heads)

    def forward(self, frames: int) -> Tensor:
        """Bias [1, heads, frames, frames] of query i and key j, to be added to scaled scores.

        Distances j - i beyond -distance and distance - 1 have the bias of these.
        """
        at_T = torch.arange(frames, device=self.bias_values.weight.device)
        apart_TT = (at_T[None, :] - at_T[:, None]).clamp(-self.distance, self.distance - 1)
        bias_TTH = self.bias_values(apart_TT + self.distance)
        # contiguous: the fused attention kernels want the keys' dimension dense
        return bias_TTH.permute(2, 0, 1)[None].contiguous()


class FeedForward(nn.Module):
    """Layer norm, then SwiGLU. The fused projection holds the values first and the gate second: the opposite of the
    text decoder's."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]; I inner channels."""
        up_BTI, gate_BTI = self.gate_up_proj(self.layer_norm(x_BTD)).chunk(2, dim=-1)
        return self.down_proj(up_BTI * F.silu(gate_BTI))


class Attention(nn.Module):
    """Multi-head attention over all frames of a row, in both directions. Queries, keys and values have biases."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BTD: Tensor, bias_BHTT: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]; E channels of a head. `bias_BHTT` is added to the scaled scores."""
        q_BHTE, k_BHTE, v_BHTE = (
            proj(x_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        y_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHTE, v_BHTE, attn_mask=bias_BHTT)
        return self.o_proj(y_BHTE.transpose(1, 2).flatten(-2))


class GatedPointwise(nn.Module):
    """A gated linear unit over channels; `b1` and `b2` are biases beside those of the convolution."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.ext_pw_conv_1d = nn.Conv1d(config.hidden_size, 2 * config.hidden_size, 1)
        self.b1 = nn.Parameter(torch.zeros(1, config.hidden_size, 1))
        self.b2 = nn.Parameter(torch.zeros(1, config.hidden_size, 1))

    def forward(self, x_BDT: Tensor) -> Tensor:
        """[B, D, T] -> [B, D, T]: channels before frames, as convolutions over time want them."""
        value_BDT, gate_BDT = self.ext_pw_conv_1d(x_BDT).chunk(2, dim=1)
        return (value_BDT + self.b1) * F.silu(gate_BDT + self.b2)


class CausalConv(nn.Module):
    """A depthwise convolution over time, then a pointwise one. A frame sees itself and the `kernel - 1` before it:
    padding behind a clip never reaches the clip."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.before = config.kernel_size - 1
        self.dw_conv = nn.Conv1d(config.hidden_size, config.hidden_size, config.kernel_size, groups=config.hidden_size)
        self.pw_conv = nn.Conv1d(config.hidden_size, config.hidden_size, 1)

    def forward(self, x_BDT: Tensor) -> Tensor:
        """[B, D, T] -> [B, D, T]. Padded on the left alone; the reference pads both sides and cuts the right."""
        return self.pw_conv(self.dw_conv(F.pad(x_BDT, (self.before, 0))))


class ConvModule(nn.Module):
    """Layer norm, gate, causal convolution, SiLU, pointwise convolution."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.glu = GatedPointwise(config)
        self.dw_sep_conv_1d = CausalConv(config)
        self.ext_pw_conv_1d = nn.Conv1d(config.hidden_size, config.hidden_size, 1)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        x_BDT = self.glu(self.layer_norm(x_BTD).transpose(1, 2))
        return self.ext_pw_conv_1d(F.silu(self.dw_sep_conv_1d(x_BDT))).transpose(1, 2)


class ConformerBlock(nn.Module):
    """One block: four residual steps, then a layer norm."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(config)
        self.layer_norm_att = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.conv = ConvModule(config)
        self.feed_forward_out = FeedForward(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x_BTD: Tensor, bias_BHTT: Tensor) -> Tensor:
        """Frames [B, T, D] -> [B, T, D]. `bias_BHTT` [1 or B, heads, T, T] is added to the scores; -inf hides a key,
        and every row must have a key that is not hidden."""
        # Half a step of feed-forward on either side (Macaron): the norm of each branch is inside it, but attention's.
        x_BTD = x_BTD + 0.5 * self.feed_forward_in(x_BTD)
        x_BTD = x_BTD + self.self_attn(self.layer_norm_att(x_BTD), bias_BHTT)
        x_BTD = x_BTD + self.conv(x_BTD)
        x_BTD = x_BTD + 0.5 * self.feed_forward_out(x_BTD)
        return self.layer_norm(x_BTD)
