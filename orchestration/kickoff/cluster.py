"""How much a cluster holds side by side, for the plan of a kickoff whose nodes are Ray jobs.

The run itself asks nobody: Ray places what each job needs, and makes the rest wait. A plan has no Ray, and would else
reckon with the CPUs of the machine that it is made on.
"""

from __future__ import annotations

import logging

from gristmill.lake.store.outage import brief
from gristmill.pipelines.kickoff.config import KickoffRun
from gristmill.pipelines.kickoff.room import Room

log = logging.getLogger("gristmill")


def room_of_cluster(run: KickoffRun, address: str) -> Room:
    """What its living nodes have together; what the file says, where it does; only a number of nodes where nobody
    answers. `address`: of the job server."""
    nodes = max(1, run.nodes)
    if run.cpus is not None:
        return Room(nodes, run.cpus, run.gpus)
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    try:
        living = list_nodes(address, filters=[("state", "=", "ALIVE")], limit=10_000)
    except (RayStateApiException, OSError, RuntimeError) as error:
        log.warning(
            "the time is that of a cluster with room for %d nodes: %s does not answer (%s)",
            nodes,
            address,
            brief(error),
        )
        return Room(nodes)
    have = [node.resources_total or {} for node in living]
    return Room(nodes, *(sum(resources.get(name, 0) for resources in have) for name in ("CPU", "GPU")))
