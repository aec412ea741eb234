"""The demo's reasoning: a model that has read word problems teaches itself to solve them, in two rounds.

All by the commands of a user. The pretrained model of the demo's training sees for a few steps how an answer looks.
Then it draws chains for problems of which the result alone is known, and is trained on those that a verifier accepts;
and once more, with other problems, as what it has become. Problems that it was never trained on are asked before and
after. Source: STaR, arXiv 2203.14465; Phi-4-Mini, arXiv 2503.01743, section 3.3.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from rich.table import Table

from gristmill.orchestration.demo.terminal import check, command, console, grist, keys, result, say
from gristmill.orchestration.demo.training import score
from gristmill.synth.bias import share

GAIN = 0.08
"""How many more of the held-out problems have to be right after two rounds, as a share; what was measured stands in
docs/reasoning.md."""
ROUNDS = {"first": "problems", "second": "more-problems"}
"""Round -> its file of problems, below nano/ of the sample data."""
DATASET, TOKENIZER, HELD_OUT = "reasoner", "nano-bpe@v1", "stories-held-out@v1"
_SHOWN = 3
"""Chains of each verdict that are printed."""
_STEPS = {"base": 25, "first": 40, "second": 40}
_DRAWS = (
    "engine.context=256",
    "draws.max_tokens=64",
    "draws.temperature=0.6",
    "waves.first=2",
    "waves.then=2",
    "stop.accept=1",
    "stop.at_most=4",
    "checks.symbolic=false",  # all answers are whole numbers
    f"decontaminate={{against: [{HELD_OUT}]}}",
    "pairs=false",
)


def reasoning(lake: str, folder: Path, seed: int = 0) -> float:
    """`folder`: nano/ of the sample data; `lake`: with what the demo's training left. -> The gain. Raises SystemExit
    where it is less than GAIN."""
    say("A model that has read word problems sees, for a few steps, how an answer looks. How many does it solve?")
    model = trained(lake, "base", "nano.pretrain@v1", "nano-chat@v1", seed)
    before = score(lake, model, HELD_OUT)
    rounds: dict[str, dict[str, Any]] = {}
    for name, problems in ROUNDS.items():
        say(
            f"The {name} round: it draws chains for problems of which the result alone is known, and they are verified."
        )
        chains = f"chains-{name}"
        draw(lake, chains, folder / f"{problems}.jsonl", model, seed)
        rounds[name] = described(lake, f"{chains}.rollouts")
        grist("show", f"{chains}.rollouts", "--lake", lake)
        if name == "first":
            say("Chains that were accepted, and chains that were rejected, with the reason.")
            for verdict in ("accepted", "rejected"):
                grist("sample", f"{chains}.rollouts", "--verdict", verdict, "-n", str(_SHOWN), "--lake", lake)
        say("What the selection did to problems of two, three and four steps; then it learns from what was selected.")
        grist("show", chains, "--lake", lake)
        model = trained(lake, name, model, mixed(lake, name), seed)
    say("The problems that nothing was ever trained on: before and after.")
    after = score(lake, model, HELD_OUT)
    grist("diff", *evaluations(lake), "--lake", lake)
    console.print(acceptance(rounds))
    gain = after.value - before.value
    check(gain >= GAIN, f"two rounds gain at least {GAIN:.0%} of the held-out problems: {gain:+.1%}")
    return gain


def trained(lake: str, name: str, base: str, mixture: str, seed: int) -> str:
    """A stage of training from a version. -> The version that it came to."""
    stage = {
        "name": name,
        "init_from": {"language": base},
        "trainable": ["language"],
        "data": mixture,
        "held_out": [HELD_OUT],
        "gates": ["frozen_parts", "trained_parts", "contamination"],
        "batch": 8,
        "steps": _STEPS[name],
        "seed": seed,
        "optim": {"kind": "muon", "lr": 0.005},
        "schedule": {"kind": "cosine", "warmup": 5},
    }
    settings = keys((f"dataset={DATASET}", f"model={base}", f"stages={json.dumps([stage])}"))
    run = ("--set", "run.workers=0", "--set", "run.windows_per_pass=8", "--lake", lake)
    grist("train", "train", *settings, *run)
    return f"{DATASET}.{name}@v1"


def draw(lake: str, dataset: str, problems: Path, model: str, seed: int) -> None:
    """Chains of a model for the problems of a file, verified and selected."""
    given = (f"dataset={dataset}", f"inputs=[{problems}]", f"engine.model={model}", f"draws.seed={seed}", *_DRAWS)
    run = ("--set", "run.workers=0", "--set", "run.hosts.max_num_seqs=64", "--lake", lake)
    first_run = result(grist("run", "conf/reasoning.yaml", *keys(given), *run))
    again = result(grist("run", "conf/reasoning.yaml", *keys(given), *run))
    check(not again["new"] and again["digest"] == first_run["digest"], "drawn once: the same command draws nothing")


def mixed(lake: str, name: str) -> str:
    """A mixture of all chains so far. -> Its version."""
    so_far = list(ROUNDS)[: list(ROUNDS).index(name) + 1]
    sources = ", ".join(f"chains-{of}@v1: {{weight: 1, max_epochs: 4}}" for of in so_far)
    settings = (f"dataset={DATASET}-{name}", f"tokenizer={TOKENIZER}", f"sources={{{sources}}}", "window=512")
    grist("run", "conf/mixture.yaml", *keys(settings), "--set", "run.workers=0", "--lake", lake)
    return f"{DATASET}-{name}@v1"


def described(lake: str, version: str) -> dict[str, Any]:
    """What `grist show` tells of a version, as data."""
    show = command("show", version, "--json", "--lake", lake)
    return dict(json.loads(subprocess.run(show, stdout=subprocess.PIPE, text=True, check=True).stdout))


def evaluations(lake: str) -> tuple[str, str]:
    """The evaluations of the base and of the last model: the newest, and the one before it of these two."""
    newest = int(described(lake, "eval")["version"])
    return f"eval@v{newest - 1}", f"eval@v{newest}"


def acceptance(rounds: dict[str, dict[str, Any]]) -> Table:
    """How many samples of each round were accepted, and why the others were not."""
    table = Table("round", "samples", "accepted", "95% interval", "why not", title="Acceptance by round")
    for name, manifest in rounds.items():
        samples, accepted = manifest["samples"][0], manifest["verdicts"]["accepted"][0]
        of_all, low, high = share(accepted, samples)
        reasons = sorted(manifest["statistics"]["rollouts"]["reasons"].items(), key=lambda item: -item[1])
        why = ", ".join(f"{reason} {count:,}" for reason, count in reasons[:3])
        table.add_row(name, f"{samples:,}", f"{of_all:.1%}", f"{low:.1%} to {high:.1%}", why)
    return table
