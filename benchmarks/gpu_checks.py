"""Is what the model computes on a GPU right? Its logits, the engine's tokens and promise, the text gate, attention.

Small models with random weights: what a kernel does wrong at a small size is wrong at a large one too, and the CPU has
to come to the same. The presets `small` (heads of 64 channels, three queries a key) and `nano` with all modalities.
A part of `python -m benchmarks gpu`, which says what `tiny` does; there the CPU is compared with itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.harness import Differ, Row
from benchmarks.on_device import device_of, plain
from benchmarks.section import Deadline, attempted
from gristmill.model.gates.kinds import Probe, base_config, batch_bits, engine_bits, fill_zero_adapters, probe
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.attention import Attention
from gristmill.model.phi4.blocks import compile_blocks
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.modalities import MODALITIES
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS

LOGITS = 1e-4
"""By how much a logit in float32 may differ from the CPU's."""
OPTIONS = Options(max_num_seqs=64, max_model_len=256, max_num_partial_prefills=4, prefill_chunk_size=32, block_size=64)

Bits = dict[tuple[str, int], tuple[tuple[int, ...], tuple[float, ...]]]
"""Of each completion its tokens and their log-probabilities, which show what tokens alone would hide."""


def lively(config: ModelConfig, device: torch.device, dtype: torch.dtype = torch.float32) -> Multimodal:
    """Random weights, drawn on the CPU, so large that what is written depends on what was read."""
    model = Multimodal.seeded(config, 0)
    fill_zero_adapters(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and name.startswith("language.") and ".adapters." not in name:
                parameter.mul_(2)
    return model.to(device, dtype).eval()


def text_config(tiny: bool) -> ModelConfig:
    """Of a text model to check with."""
    return ModelConfig(PRESETS["nano" if tiny else "small"].text)


def requests(vocab: int, count: int, sampling: Sampling) -> list[Request]:
    """Prompts of many lengths, some of several completions."""
    pick = torch.Generator().manual_seed(1)
    lengths = [3 + 13 * number % 120 for number in range(count)]
    drawn = [tuple(torch.randint(16, vocab, (length,), generator=pick).tolist()) for length in lengths]
    return [Request(f"{number}", ids, sampling, n=1 + number % 3) for number, ids in enumerate(drawn)]


def bits_of(model: Multimodal, options: Options, asked: list[Request]) -> Bits:
    """What the engine makes of these requests."""
    ended = Engine(model, options).run(asked)
    return {(each.request.key, each.number): (tuple(each.tokens), tuple(each.logprobs)) for each in ended}


def same_bits(what: str, bits: Bits, expected: Bits) -> None:
    """Raises Differ where a completion is another one."""
    if other := [key for key, value in bits.items() if expected[key] != value]:
        raise Differ(f"{what}: {len(other)} of {len(bits)} completions differ, as {other[:3]}")


@torch.inference_mode()
def logits(device: torch.device, tiny: bool) -> Iterator[Row]:
    """Logits in float32 against the CPU's, of rows with padding and of packed samples."""
    config = text_config(tiny)
    here, there = lively(config, torch.device("cpu")), lively(config, device)
    ids = torch.randint(16, config.text.vocab_size, (3, 70), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, :20] = 0
    segments = torch.arange(70).div(24, rounding_mode="floor").expand(3, -1)
    for what, given in (("padded rows", {"attention_mask": mask}), ("packed", {"segment_ids": segments})):
        expected = here(ids, **given).logits
        result = there(ids.to(device), **{name: tensor.to(device) for name, tensor in given.items()}).logits.cpu()
        real = mask.bool() if what == "padded rows" else torch.ones_like(mask, dtype=torch.bool)
        apart = (result - expected)[real].abs().max().item()
        if not apart < LOGITS:
            raise Differ(f"logits of {what}: {apart:.3g} from the CPU's, allowed is {LOGITS}")
        yield Row(f"logits, {what}: from the CPU's", plain(apart), "at most", f"below {LOGITS}")


def gradients(device: torch.device, tiny: bool) -> Iterator[Row]:
    """Gradients in float32 against the CPU's, in proportion to each tensor's norm."""
    config = text_config(tiny)
    ids = torch.randint(16, config.text.vocab_size, (2, 40), generator=torch.Generator().manual_seed(3))
    models = [lively(config, torch.device("cpu")), lively(config, device)]
    for model in models:
        place = model.language.norm.weight.device
        logits = model(ids.to(place)).logits[:, :-1].flatten(0, 1)
        F.cross_entropy(logits, ids[:, 1:].flatten().to(place)).backward()
    worst = 0.0
    for expected, result in zip(*(model.parameters() for model in models), strict=True):
        assert expected.grad is not None and result.grad is not None
        worst = max(worst, ((result.grad.cpu() - expected.grad).norm() / expected.grad.norm()).item())
    if not worst < 1e-3:
        raise Differ(f"gradients: {worst:.3g} of their norm from the CPU's")
    yield Row("gradients: from the CPU's, of their norm", plain(worst), "at most", "below 1e-3")


@torch.inference_mode()
def greedy(device: torch.device, tiny: bool) -> Iterator[Row]:
    """The engine's greedy tokens in float32 against the model's own without a cache, which knows no graphs, and
    against the engine's without graphs, in bfloat16 bit for bit."""
    config = text_config(tiny)
    model, steps = lively(config, device), 8 if tiny else 24
    sampling = Sampling(max_tokens=steps, temperature=0.0, ignore_eos=True)
    asked = [replace(request, n=1) for request in requests(config.text.vocab_size, 8, sampling)]
    tokens = {key[0]: value[0] for key, value in bits_of(model, OPTIONS, asked).items()}
    for request in asked:
        ids = torch.tensor([[*request.tokens, *tokens[request.key]]], device=device)
        scores = model(ids).logits[0, len(request.tokens) - 1 : -1]
        chosen = scores.gather(1, ids[0, len(request.tokens) :, None])[:, 0]
        # By score, not by name: of two tokens as likely to within rounding either may be taken.
        worst = (scores.amax(1) - chosen).max().item()
        if not worst < 1e-3:
            raise Differ(f"greedy tokens of request {request.key}: {worst:.3g} below the likeliest")
    yield Row("greedy tokens that are the likeliest of the model without a cache", plain(float(len(asked) * steps)),
              "tokens", "logit within 1e-3")  # fmt: skip
    model.to(torch.bfloat16)
    asked = requests(config.text.vocab_size, 16, replace(sampling, temperature=1.0, logprobs=0))
    expected = bits_of(model, replace(OPTIONS, graphs=False), asked)
    same_bits("graphs against none", bits_of(model, OPTIONS, asked), expected)
    yield Row("engine: completions with graphs as without", plain(float(len(expected))), "completions", "bits")


def promise(device: torch.device, tiny: bool) -> Iterator[Row]:
    """In bfloat16 a completion is bit for bit the same whatever its mates, its slot and the order of requests."""
    config = text_config(tiny)
    model = lively(config, device, torch.bfloat16)
    sampling = Sampling(max_tokens=6 if tiny else 32, temperature=1.0, top_p=0.95, ignore_eos=True, logprobs=0)
    asked = requests(config.text.vocab_size, 6 if tiny else 40, sampling)
    together = bits_of(model, OPTIONS, asked)
    same_bits("in the other order", bits_of(model, OPTIONS, asked[::-1]), together)
    for request in asked[:: 2 if tiny else 8]:
        same_bits(f"request {request.key} alone", bits_of(model, OPTIONS, [request]), together)
    yield Row("bfloat16: completions that do not depend on mates, slot and order", plain(float(len(together))),
              "completions", "bits")  # fmt: skip


def text_gate(device: torch.device, tiny: bool) -> Iterator[Row]:
    """Text in bfloat16 is bit for bit what the language model alone makes of it, beside images and clips with their
    adapters, padded and packed; by the engine; and with compiled blocks, as in training."""
    config = PRESETS["nano"]
    whole = lively(config, device)
    base = Multimodal(base_config(config, "text"))
    own = whole.state_dict()
    base.load_state_dict({name: own[name] for name in base.state_dict()})
    models = [whole.to(torch.bfloat16), base.to(device, torch.bfloat16).eval()]
    given = probe(config)
    places = given.names("text")
    results: dict[str, list[dict[str, str]]] = {"eager": [batch_bits(model, given) for model in models]}
    results["engine"] = [{"text": engine_bits(model, given, "text")} for model in models]
    for model in models:
        compile_blocks(model.language, "aot_eager" if tiny else "inductor")
    results["compiled"] = [compiled_bits(model, given) for model in models]
    count = 0
    for way, (mixed, alone) in results.items():
        names = ["text"] if way == "engine" else places
        if other := [name for name in names if mixed[name] != alone[name]]:
            raise Differ(f"text gate, {way}: {len(other)} of {len(names)} places differ, as {other[0]}")
        count += len(names)
    seen = results["eager"]
    if all(seen[0][name] == seen[1][name] for name in given.segments):
        raise Differ("text gate: adapters and encoders change nothing, so it would pass whatever is wrong")
    yield Row("text gate, bfloat16: places of text with the same bits, eager, engine, compiled", plain(float(count)),
              "places", "bits")  # fmt: skip


def compiled_bits(model: Multimodal, given: Probe) -> dict[str, str]:
    """As the gate's `batch_bits`, with compiled blocks of the language model: those are used where gradients are
    computed, which it does without."""
    device = model.language.norm.weight.device
    takes = {name for modality in MODALITIES if getattr(model.config, modality.name) for name in modality.inputs}
    inputs: dict[str, Any] = {name: tensor.to(device) for name, tensor in given.inputs.items() if name in takes}
    hidden_BLD = model.hidden(
        given.input_ids.to(device),
        given.attention_mask.to(device),
        segment_ids=given.segment_ids.to(device),
        **inputs,
    ).detach()
    scores = {name: model.language.head(hidden_BLD[row, a:b]) for name, (row, a, b) in given.segments.items()}
    return {
        name: hashlib.sha256(each.detach().view(torch.uint8).cpu().numpy().tobytes()).hexdigest()
        for name, each in scores.items()
    }


def varlen(device: torch.device, tiny: bool) -> Iterator[Row]:
    """Attention of segments end to end against each alone in float32, and that neighbours change no bit."""
    heads, groups, dim = (4, 2, 32) if tiny else (24, 8, 128)
    lengths = [5, 70, 1, 33] if tiny else [300, 1, 1024, 77, 640]
    dtype = torch.bfloat16
    total = sum(lengths)
    pick = torch.Generator(device).manual_seed(4)
    shapes = ((1, heads, total, dim), (1, groups, total, dim), (1, groups, total, dim))
    query, keys, values = (torch.randn(shape, generator=pick, device=device).to(dtype) for shape in shapes)
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None].to(device)
    result = Attention(numbers)(0, query, keys, values)
    worst, first = 0.0, 0
    for length in lengths:
        cut = slice(first, first + length)
        q, k, v = (x[:, :, cut].float() for x in (query, keys, values))
        k, v = (x.repeat_interleave(heads // groups, 1) for x in (k, v))
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        worst = max(worst, ((result[:, :, cut].float() - expected).norm() / expected.norm()).item())
        first += length
    if not worst < 0.01:
        raise Differ(f"attention of segments: {worst:.3g} of its norm from that of each alone")
    yield Row("attention of segments, bfloat16: from each alone in float32", plain(worst), "at most", "below .01")
    pair = slice(0, lengths[0] + lengths[1])
    fewer = Attention(numbers[:, pair])(0, query[:, :, pair], keys[:, :, pair], values[:, :, pair])
    if not torch.equal(fewer, result[:, :, pair]):
        raise Differ("attention of segments: other neighbours, other bits")
    yield Row("attention of segments with other neighbours", plain(2.0), "segments", "bits")


def rows(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """All of them; a check that fails is a row that says what differs, and the others go on."""
    del deadline  # each takes seconds
    device = device_of(tiny)
    checks = (logits, gradients, greedy, promise, text_gate, varlen)
    for check in checks:
        yield from attempted(check.__name__.replace("_", " "), partial(check, device, tiny))
