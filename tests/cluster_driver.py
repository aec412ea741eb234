"""A web run on a Ray cluster of several nodes on this machine, one of which is killed while it works.

Run as a program: `cluster_driver.py LAKE RECEIPTS FILE...`: a head without CPUs and two nodes, of which one is killed
once the lake has RECEIPTS receipts, all its processes at a time. Prints one JSON object. A program
and not a test, because Ray reads its environment when it is imported.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
from pathlib import Path
from typing import Any

from gristmill.stages.run.cluster import LOOPBACK
from gristmill.stages.run.private import locked_folder
from gristmill.stages.run.ray_start import LIMITS, patient

os.environ |= {**LOOPBACK, **LIMITS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

import ray
import web
from ray.cluster_utils import Cluster
from waiting import until

from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.stages.run.runner import Runner

SMALL = 10_000
"""Bytes of a piece of work: there are enough of them to die in the middle of one."""
STORE = 80 << 20  # bytes of a node's object store


def main(lake: Path, receipts: int, files: list[str]) -> None:
    """See above."""
    with locked_folder() as folder:
        head = {
            "num_cpus": 0,
            "object_store_memory": STORE,
            "include_dashboard": False,
            "temp_dir": str(folder / "ray"),
        }
        os.environ["RAY_TMPDIR"] = str(folder)  # where it notes "the current cluster" of this machine, for others
        with patient():
            cluster = Cluster(initialize_head=True, head_node_args=head)
            nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
        os.environ["RAY_ADDRESS"] = cluster.address
        facts: dict[str, Any] = {}
        killer = threading.Thread(target=kill_one, args=(cluster, nodes, lake, receipts, facts), daemon=True)
        killer.start()
        store = open_store(str(lake))
        config = web.config([Path(file) for file in files], scan={"chunk_bytes": SMALL})
        result = run_pipeline(config, store, Runner(store, workers=2, shared_filesystem=True))
        killer.join()
        alive = sum(node["Alive"] for node in ray.nodes())
        facts |= {"digest": result.manifest.digest, "receipts": count(lake), "alive": alive, "nodes": len(ray.nodes())}
        print(json.dumps(facts), flush=True)
        ray.shutdown()
        cluster.shutdown()


def kill_one(cluster: Cluster, nodes: list[Any], lake: Path, receipts: int, facts: dict[str, Any]) -> None:
    """Kills a node, not the one that this driver speaks through, once there are so many receipts."""
    until(lambda: count(lake) >= receipts, f"{receipts} receipts")
    facts["at"] = count(lake)
    mine = ray._private.worker.global_worker.node.address_info["raylet_socket_name"]
    other = next(node for node in nodes if node.address_info["raylet_socket_name"] != mine)
    cluster.remove_node(other, allow_graceful=False)


def count(lake: Path) -> int:
    """Receipts in the lake."""
    return sum(1 for _ in (lake / "receipts").rglob("*.json"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
