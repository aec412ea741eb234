"""How fast does the engine generate on a GPU at the shape of Phi-4-Mini, and how near the limit of its memory?

Random weights in bfloat16, prompts of 128 tokens, 128 tokens to write each, the end token ignored, twice as many
requests as slots. Against transformers' generate in batches of as many, and its continuous batching; they need not
write the same tokens, since bfloat16 rounds differently by kernel: how many are the same is told. The limit: all
weights, and the keys and values written so far, have to be read in every step; a copy measures the card's bandwidth.
Not one of the README's figures: `python -m benchmarks generate_gpu` runs it where there is a GPU. `--tiny` runs a small
model on the CPU, to see that it runs, without their continuous batching, which takes long to begin there.
"""

from __future__ import annotations

import importlib.metadata
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Differ, Figure, Report, Row, figure
from gristmill.lake.store.objects import scratch
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS

PROMPT, WRITTEN = 128, 128
SLOTS = (64, 256, 1024)

Run = Callable[[], list[tuple[int, ...]]]


def by_engine(engine: Engine, prompts: list[list[int]], written: int) -> list[tuple[int, ...]]:
    """Tokens of each prompt, `written` of them."""
    sampling = Sampling(max_tokens=written, temperature=0.0, ignore_eos=True)
    requests = [Request(str(n), tuple(ids), sampling) for n, ids in enumerate(prompts)]
    tokens = {completion.request.key: tuple(completion.tokens) for completion in engine.run(requests)}
    return [tokens[request.key] for request in requests]


def by_generate(reference: Any, prompts: list[list[int]], written: int, slots: int) -> list[tuple[int, ...]]:
    """As `by_engine`, by transformers' `generate` in batches of `slots`."""
    tokens: list[tuple[int, ...]] = []
    for start in range(0, len(prompts), slots):
        ids = torch.tensor(prompts[start : start + slots], device=reference.device)
        sequences = reference.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=written,
            do_sample=False,
            eos_token_id=-1,
        )
        tokens += [tuple(row) for row in sequences[:, ids.shape[1] :].tolist()]
    return tokens


def by_continuous_batching(reference: Any, prompts: list[list[int]], written: int) -> list[tuple[int, ...]]:
    """As `by_engine`, by transformers' continuous batching."""
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=written, do_sample=False, eos_token_id=-1)
    outputs = reference.generate_batch(prompts, generation_config=config)
    in_order = sorted(outputs, key=lambda key: int(key.rsplit("_", 1)[-1]))
    return [tuple(outputs[key].generated_tokens) for key in in_order]


def timed(run: Run, rounds: int, device: torch.device) -> tuple[Figure, list[tuple[int, ...]]]:
    """Tokens a second of the clock, a first round not counted."""
    speeds: list[float] = []
    tokens: list[tuple[int, ...]] = []
    for n in range(rounds + 1):
        started = time.perf_counter()
        tokens = run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if n:
            speeds.append(sum(map(len, tokens)) / (time.perf_counter() - started))
    return figure(speeds), tokens


def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.empty(1 << (30 if device.type == "cuda" else 24), dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), 0.0
    for _ in range(5):
        started = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * source.nbytes / (time.perf_counter() - started))
    return best


def limit(model: Multimodal, slots: int, prompt: int, written: int, bytes_a_second: float) -> float:
    """Tokens a second if a step only read the weights and the keys and values of sequences half written."""
    text = model.config.text
    weights = sum(parameter.nbytes for parameter in model.parameters())
    token = (
        2
        * text.num_hidden_layers
        * text.num_key_value_heads
        * text.head_dim
        * model.language.norm.weight.element_size()
    )
    return slots * bytes_a_second / (weights + slots * (prompt + written / 2) * token)


def measure(model: Multimodal, reference: Any, slots: int, rounds: int, lengths: tuple[int, int]) -> list[Row]:
    """Rows of the report for so many slots. `lengths`: tokens of a prompt, and tokens to write."""
    prompt, written = lengths
    device = model.language.norm.weight.device
    draw = random.Random(0)
    vocab = model.config.text.vocab_size
    prompts = [[draw.randrange(16, vocab) for _ in range(prompt)] for _ in range(2 * slots)]
    block = min(128, prompt)
    options = Options(
        slots,
        -(-(prompt + written) // block) * block,
        max_num_partial_prefills=8,
        prefill_chunk_size=min(128, prompt),
        block_size=block,
    )
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    engine = Engine(model, options)
    speed_here, tokens = timed(lambda: by_engine(engine, prompts, written), rounds, device)
    estimate = options.bytes(model.config, model.language.norm.weight.dtype)
    rows = [
        Row(f"{slots} slots: ours", speed_here, "tokens/s", "number of tokens"),
        Row(f"{slots} slots: share of the bandwidth limit", _share(speed_here, model, slots, lengths, device), "%"),
    ]
    if device.type == "cuda":
        taken = torch.cuda.max_memory_allocated() - before
        rows.append(Row(f"{slots} slots: memory at most, over caches' estimate", _plain(taken / estimate), "x"))
    peers: dict[str, Run] = {
        "transformers.generate": lambda: by_generate(reference, prompts, written, slots),
    }
    if device.type == "cuda":
        peers["transformers' continuous batching"] = lambda: by_continuous_batching(reference, prompts, written)
    for name, run in peers.items():
        speed, others = timed(run, rounds, device)
        counts = [len(sequence) for sequence in others]
        if counts != [written] * len(prompts):
            raise Differ(f"generate_gpu: {name} wrote {sorted(set(counts))} tokens, asked {written}")
        same = sum(a == b for a, b in zip(tokens, others, strict=True))
        rows.append(Row(f"{slots} slots: {name}", speed, "tokens/s", f"{same} of {len(others)} the same"))
        rows.append(Row(f"{slots} slots: ours over {name}", _plain(speed_here.median / speed.median), "x"))
    return rows


def _plain(value: float) -> Figure:
    return Figure(value, value, value)


def _share(speed: Figure, model: Multimodal, slots: int, lengths: tuple[int, int], device: torch.device) -> Figure:
    most = limit(model, slots, *lengths, bandwidth(device))
    return Figure(*(100 * tokens_a_second / most for tokens_a_second in speed))


def run(tiny: bool) -> Report:
    """The contest, on a GPU. `tiny`: a small model on the CPU, to see that it runs."""
    from transformers import AutoModelForCausalLM

    if not tiny and not torch.cuda.is_available():
        raise SystemExit("generate_gpu needs a GPU that torch sees; --tiny runs a small model on the CPU")
    device = torch.device("cpu" if tiny else "cuda")
    config = ModelConfig(PRESETS["nano" if tiny else "mini"].text)
    sizes, rounds, lengths = ((4,), 1, (32, 8)) if tiny else (SLOTS, 2, (PROMPT, WRITTEN))
    with torch.device(device):
        model = Multimodal.seeded(config, 0).to(torch.float32 if tiny else torch.bfloat16).eval()
    with scratch() as folder:
        reference = _reference(AutoModelForCausalLM, model, folder, device)
        rows: list[Row] = []
        for slots in sizes:
            rows += measure(model, reference, slots, rounds, lengths)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    return Report(
        name="generate_gpu",
        data=f"random weights of {sum(parameter.numel() for parameter in model.parameters()):,} parameters, prompts of "
        f"{lengths[0]} tokens, {lengths[1]} written, on {where}",
        rounds=rounds,
        rows=tuple(rows),
        details={"packages": {name: importlib.metadata.version(name) for name in ("torch", "transformers")}},
    )


def _reference(kind: Any, model: Multimodal, folder: Path, device: torch.device) -> Any:
    save_hf(model, folder / "hf")
    dtype = model.language.norm.weight.dtype
    return kind.from_pretrained(folder / "hf", dtype=dtype, attn_implementation="sdpa").to(device).eval()
