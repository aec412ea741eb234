"""`make soak`: runs of the trainer under seeded kill -9s, and the same bits as without any.

An episode is a run that is killed one to three times and begun again until it ends. Its seed says who is killed, at
which event and how often that came before: a step, a file of a checkpoint, a rename, an upload, a removal; no clock
decides. Victims in turn: a process; one that goes on from a store, in a folder or on S3, as a new machine does; one of
two ranks; a run that goes on in another number of ranks; a rank on Ray, which bears it; the driver of a recipe whose
ranks are on Ray. The weights have to be those of an uninterrupted run of as many ranks, to the bit, and the windows, by
the hash of their order, those of any run. Prints a JSON line an episode; exit code 1 if one differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from ranks import in_ranks
from s3_server import run_seaweedfs
from safetensors import safe_open
from train_kills import LOCAL, REMOTE, in_child
from train_on_ray import Kill, TinyRun
from train_windows import write_windows
from waiting import PATIENCE, until

from gristmill.model.train.ranks import Ranks

ROOT = Path(__file__).parents[1]
VICTIMS = ("process", "moved", "s3", "rank", "world", "process", "moved", "rank", "world", "s3")
ON_RAY = {11: "ray rank", 22: "ray driver", 33: "ray rank", 44: "ray driver"}
"""By the seed, in place of the others: each of them starts Ray."""
MOST = 12
"""Events of a kind before a kill, at most: some kills come after the end, and are none."""


@dataclass(frozen=True)
class Soak:
    """`ends`: weights and hash of the order of uninterrupted runs, by ranks; `bucket`: an empty place on S3."""

    folder: Path
    run: TinyRun
    ends: dict[int, tuple[dict[str, torch.Tensor], str]]
    bucket: str

    def episode(self, victim: str, dice: random.Random) -> tuple[list[Kill], bool]:
        """(kills, whether it came to the same)."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            run = replace(self.run, folder=Path(name))
            match victim:
                case "ray rank":
                    return self._ray_rank(run, dice)
                case "ray driver":
                    return ray_driver(Path(name), dice)
                case "moved":
                    run = replace(run, lake=f"{name}/lake")
                case "s3":
                    run = replace(run, lake=f"{self.bucket}/{Path(name).name}")
            first = 2 if victim == "rank" else dice.choice((1, 2)) if victim == "world" else 1
            last = 3 - first if victim == "world" else first
            kills = [kill for _ in range(dice.randint(1, 3)) if (kill := killed(run, first, dice))]
            train(replace(run, kill=None), last)
            return kills, self.same(run, last, bits=victim != "world")

    def same(self, run: TinyRun, ranks: int, bits: bool) -> bool:
        """Whether a run ended as one that was not interrupted: all `bits`, or only the windows and their order."""
        weights, order = end_of(run)
        there, order_there = self.ends[ranks]
        return order == order_there and (not bits or all(torch.equal(there[key], weights[key]) for key in there))

    def _ray_rank(self, run: TinyRun, dice: random.Random) -> tuple[list[Kill], bool]:
        kill = Kill(1, "pass", dice.randrange(20)) if dice.random() < 0.5 else Kill(0, dice.choice(LOCAL), 1)
        program = [sys.executable, str(Path(__file__).with_name("train_on_ray.py")), str(run.windows), str(run.folder)]
        finish([*program, "2", json.dumps(kill)])
        return [kill], self.same(run, 2, bits=True)


def killed(run: TinyRun, ranks: int, dice: random.Random) -> Kill | None:
    """Trains until it is killed. -> The kill; None where the run ended before."""
    events = LOCAL + REMOTE if run.lake else LOCAL
    rank = dice.randrange(ranks)
    kill = Kill(rank, dice.choice(events) if rank == 0 else "pass", dice.randrange(MOST))
    (run.folder / "killed").unlink(missing_ok=True)
    return kill if train(replace(run, kill=kill), ranks) else None


def train(run: TinyRun, ranks: int) -> bool:
    """Trains in so many processes. -> Whether one was killed."""
    if ranks == 1:
        return in_child(lambda: run(Ranks())) != 0
    statuses = in_ranks(run.folder, ranks, run)
    dead = [os.WIFSIGNALED(status) for status in statuses]
    if not any(dead) and any(statuses):
        sys.exit(f"ranks ended with {statuses}")
    return any(dead)


def end_of(run: TinyRun) -> tuple[dict[str, torch.Tensor], str]:
    """Weights at the end of a run, and the hash of the order of its windows."""
    with safe_open(run.folder / "weights", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["order"]  # noqa: SIM118


def ray_driver(folder: Path, dice: random.Random) -> tuple[list[Kill], bool]:
    """A recipe in two ranks on Ray whose driver is killed after a checkpoint, and one whose driver is not. What is left
    of the first one's ranks may still write when it is begun again."""
    program = [sys.executable, str(Path(__file__).with_name("train_lake.py"))]
    step = dice.choice((2, 4))
    command = [*program, str(folder / "killed"), "ray", "2"]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place = f"runs/*/checkpoints/step-{step:09d}"
    until(lambda: list((folder / "killed").glob(place)), f"a checkpoint of step {step}", by=driver, pause=0.001)
    driver.kill()
    driver.wait()
    ends = [finish([*program, str(folder / name), "ray", "2"]) for name in ("killed", "whole")]
    shards, orders = zip(*((end["shards"], end["order"]) for end in map(json.loads, ends)), strict=True)
    return [Kill(-1, "checkpoint", step)], shards[0] == shards[1] and orders[0] == orders[1]


def finish(command: list[str]) -> str:
    """The last line that a program prints, which has to end well."""
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    if child.returncode:
        sys.exit(f"{command} ended with exit code {child.returncode}: {child.stdout}{child.stderr}")
    return (child.stdout.splitlines() or [""])[-1]


def main(arguments: list[str]) -> int:
    """Episodes until there were so many kills, and whether all came to the same."""
    parser = argparse.ArgumentParser(prog="soak_train", description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the first episode; the others follow")
    parser.add_argument("--without-ray", action="store_true", help="leave out the episodes that start Ray")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["RAY_ADDRESS"] = ""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    started, total, seed = time.monotonic(), 0, given.seed
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="grist-soak-")))
        (folder / "s3").mkdir()
        server = stack.enter_context(run_seaweedfs(folder / "s3"))
        os.environ |= server.environment
        source = write_windows(folder / "windows")
        run = TinyRun(folder / "windows", source.shards, folder)
        ends = {}
        for ranks in (1, 2):
            train(run, ranks)
            ends[ranks] = end_of(run)
            for path in sorted((folder / "c").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
        soak = Soak(folder, run, ends, f"s3://{server.bucket}/soak")
        while total < given.kills:
            on_ray = None if given.without_ray else ON_RAY.get(seed)
            victim = on_ray or VICTIMS[seed % len(VICTIMS)]
            kills, same = soak.episode(victim, random.Random(seed))
            total += len(kills)
            print(json.dumps({"seed": seed, "victim": victim, "kills": kills, "same": same}), flush=True)
            if not same:
                return 1
            seed += 1
    seconds = round(time.monotonic() - started)
    print(json.dumps({"kills": total, "episodes": seed - given.seed, "seconds": seconds, "same": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
