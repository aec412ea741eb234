"""How fast is a step of fine-tuning an adapter on a GPU, against transformers with peft, and that with liger-kernel?

The 3.8 B shape of Phi-4-Mini with random weights, an adapter of rank 320 on all linears, 2 rows of 4,096 tokens: whole
samples, and 5 samples packed a row. Interleaved: in each round every arm has a turn, in which it begins anew, takes
steps that are not counted, and then some that are. All begin from the same weights and see the same tokens, and their
losses are compared at every step. Operations are counted by arithmetic (`train_arms.flops_a_token`), recomputation not
counted; the peak of a card is that of its data sheet. Memory is an arm's own: what others keep beside it is left out.
A part of `python -m benchmarks gpu`, which says what `tiny` does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.harness import Differ, Row, figure
from benchmarks.on_device import GIB, device_of, free, inverse, peak_of, plain, settle
from benchmarks.peer_models import LIGER, missing, text_model, transformers_model, with_liger, with_peft
from benchmarks.section import NO_TIME, Card, Deadline, reason
from benchmarks.train_arms import ADAPTER, Arm, Rows, flops_a_token, own_arm, peer_arm
from gristmill.model.phi4.config import LoraConfig, ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.train.metrics import utilisation

SHARES = (0.1, 0.3, 0.15, 0.25, 0.2)
"""Of a packed row: of its five samples."""
WARM, COUNTED, ROUNDS = 2, 3, 3
"""Steps of a turn, before the clock runs and with it; turns of an arm, at most."""
APART = 0.005
"""Of a loss by which two arms may differ: bfloat16 rounds otherwise by kernel."""
OWN, OWN_COMPILED, PEFT = "ours", "ours, compiled", "transformers + peft"
LIGERS = f"{PEFT} + liger-kernel"
RECOMPUTED, PACKED = ", recomputing", ", packed"


def arms_of(model: Multimodal, rows: Rows, tiny: bool) -> Iterator[Arm | Row]:
    """The contestants, in order of worth; of those that cannot be, why. Peers come to be as they are asked for."""
    packed = replace(rows, shares=SHARES)
    # Inductor would take minutes for what the CPU is to show: that a compiled arm runs.
    backend = "aot_eager" if tiny else "inductor"
    yield own_arm(model, rows, OWN_COMPILED, backend=backend)
    peers: list[Any] = []
    for name, package in ((PEFT, "peft"), (LIGERS, LIGER)):
        if why := missing("transformers") or missing("peft") or missing(package):
            yield Row(name, None, "", why=why)
            continue
        try:
            reference = transformers_model(model)
            peer = with_peft(with_liger(reference) if package == LIGER else reference, model.config.adapters[0])
        except Exception as error:  # told in the row: a peer of another release
            yield Row(name, None, "", why=reason(error))
            continue
        peers.append((name, peer))
        yield peer_arm(peer, rows, name)
    yield own_arm(model, rows, OWN)
    yield own_arm(model, rows, OWN_COMPILED + RECOMPUTED, backend=backend, recompute=True)
    yield own_arm(model, packed, OWN_COMPILED + PACKED, backend=backend)
    for name, peer in reversed(peers):
        yield peer_arm(peer, rows, name + RECOMPUTED, recompute=True)
    yield own_arm(model, rows, OWN + RECOMPUTED, recompute=True)
    yield own_arm(model, packed, OWN + PACKED)
    for name, peer in peers:
        yield peer_arm(peer, packed, name + PACKED)


def take_turn(arm: Arm, device: torch.device) -> None:
    """A turn of an arm: its seconds a step, losses and peak are added to what it has."""
    with peak_of(device) as peak, arm.turn() as step:
        losses = [step() for _ in range(WARM)]
        settle(device)
        started = time.perf_counter()
        losses += [step() for _ in range(COUNTED)]
        settle(device)
        arm.seconds.append((time.perf_counter() - started) / COUNTED)
        arm.losses = torch.stack(losses).tolist()
    if device.type == "cuda":  # where several models are, what this arm would need alone
        arm.peak = max(arm.peak, peak.more + arm.bytes)


def check(arm: Arm, others: Sequence[Arm]) -> None:
    """Raises Differ where an arm learns nothing, or its losses are not those of another on the same rows, step by
    step."""
    if not arm.losses[-1] < arm.losses[0]:
        raise Differ(f"a loss of {arm.losses[0]:.4f}, and after {len(arm.losses) - 1} steps of {arm.losses[-1]:.4f}")
    for other in others:
        if other.rows != arm.rows or not other.losses:
            continue
        for step, (loss, expected) in enumerate(zip(arm.losses, other.losses, strict=True)):
            if not abs(loss - expected) <= APART * expected:
                raise Differ(f"step {step}: a loss of {loss:.4f}, {other.name} has {expected:.4f}")


def rows_of(arm: Arm, card: Card, text_flops: float) -> Iterator[Row]:
    """Speed, share of the card's peak, and memory."""
    tokens = arm.rows.count * arm.rows.tokens
    speed = inverse(figure(arm.seconds), tokens)
    yield Row(arm.name, speed, "tokens/s", f"losses within {100 * APART}%")
    share = utilisation(text_flops * tokens, statistics.median(arm.seconds), card.name, 1)
    if share is not None:
        yield Row(f"{arm.name}: operations, of the card's peak", plain(100 * share), "%")
    if arm.peak:
        yield Row(f"{arm.name}: memory at most", plain(arm.peak / GIB), "GiB")


def ratios(arms: Sequence[Arm]) -> Iterator[Row]:
    """How often faster than which peer, and what packing costs, within rounds."""
    by_name = {arm.name: arm for arm in arms if arm.seconds}
    pairs = [
        (f"{mine} over {other}{kind}", other + kind, mine + kind)
        for mine in (OWN_COMPILED, OWN)
        for other in (PEFT, LIGERS)
        for kind in ("", RECOMPUTED, PACKED)
    ]
    pairs += [(f"{mine}: a packed step's time, of one not packed", mine + PACKED, mine) for mine in (OWN_COMPILED, OWN)]
    for what, above, below in pairs:
        if above in by_name and below in by_name:
            turns = zip(by_name[above].seconds, by_name[below].seconds, strict=False)  # one may have failed later
            yield Row(what, figure([a / b for a, b in turns]), "x")


def sft(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """All arms. An arm that fails leaves; the others go on. Its rows come after its first turn, and once more, with all
    turns, at the end."""
    device, card = device_of(tiny), Card.here(tiny)
    rank, rows = (8, Rows(2, 64)) if tiny else (320, Rows(2, 4096))
    lora = LoraConfig(ADAPTER, rank, 2.0 * rank)
    config = ModelConfig(PRESETS["nano" if tiny else "mini"].text, adapters=(lora,))
    model = text_model(config, device, torch.bfloat16)
    arms: list[Arm] = []
    for arm in arms_of(model, rows, tiny):
        if isinstance(arm, Row):
            yield arm
        elif deadline.left() <= 0:
            yield Row(arm.name, None, "", why=NO_TIME, failed=True)
        elif fault := _fault(arm, arms, device):
            yield Row(arm.name, None, "", why=fault, failed=not arm.peer)
        else:
            arms.append(arm)
            yield from rows_of(arm, card, flops_a_token(config.text, rank, arm.rows))
    # The first turns found out who can. Their seconds count: what is compiled is so before the clock runs.
    going, a_round = list(arms), 1.5 * (WARM + COUNTED) * sum(arm.seconds[0] for arm in arms)
    for _ in deadline.rounds(0 if tiny else ROUNDS - 1, a_round):
        for arm in list(going):
            if fault := _fault(arm, arms, device):
                going.remove(arm)
                yield Row(f"{arm.name}: a later turn", None, "", why=fault, failed=not arm.peer)
    for arm in arms:
        yield from rows_of(arm, card, flops_a_token(config.text, rank, arm.rows))
    yield from ratios(arms)


def _fault(arm: Arm, others: Sequence[Arm], device: torch.device) -> str:
    """Gives an arm a turn: why it cannot be counted; empty: it can."""
    try:
        take_turn(arm, device)
        check(arm, others)
    except Exception as error:  # told in the arm's row
        return reason(error)
    finally:
        free(device)
    return ""
