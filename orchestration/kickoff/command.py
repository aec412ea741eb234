"""`grist kickoff` from its arguments to its exit code, and where its nodes run.

With $PREFECT_API_URL it is a flow run of that server, whose tasks are the nodes (orchestration/kickoff/flow.py). Else
nodes run on this machine; in both cases they start by `run_graph` and are brought by `bring`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gristmill.lake.store.base import UnknownFormat, UnsafeStore
from gristmill.lake.store.outage import Unreachable
from gristmill.orchestration.announce import JOB_SERVER, SERVER
from gristmill.orchestration.kickoff.local import Processes, here, inline, threaded
from gristmill.orchestration.kickoff.show import Shown, draw_plan, stderr
from gristmill.orchestration.kickoff.summary import summary
from gristmill.orchestration.show.terminal import answer, plain
from gristmill.pipelines.kickoff.bring import End
from gristmill.pipelines.kickoff.plan import Plan
from gristmill.pipelines.kickoff.prepare import Asked, Prepared, prepare
from gristmill.pipelines.kickoff.run import run_graph
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.settings.exits import BAD_CONFIG, DONE, INCOMPLETE
from gristmill.stages.run.cluster import stop_on_sigterm


def run(asked: Asked, plan: bool = False, logs: Path | None = None, as_json: bool = False) -> int:
    """Runs or plans a kickoff, and says on stdout what it came to. -> The exit code."""
    try:
        stop_on_sigterm()
        if plan:
            planned = planned_of(asked)
            answer(planned, as_json, lambda console: draw_plan(console, planned))
            return DONE
        if os.environ.get(SERVER):
            from gristmill.orchestration.kickoff.flow import run_flow  # Prefect takes seconds to import

            prepared, ends = run_flow(asked)
        else:
            prepared = prepare(asked)
            ends = on_this_machine(prepared, logs)
        result = summary(prepared, ends)
    except (BadConfig, UnsafeStore, UnknownFormat) as error:
        return _failed(error, BAD_CONFIG)
    except (OSError, Unreachable) as error:
        return _failed(f"{error}; what is done is kept: run the same command again", INCOMPLETE)
    except KeyboardInterrupt:
        return _failed("interrupted; what is done is kept: run the same command again", INCOMPLETE)
    answer(result, as_json, result.draw)
    return result.code


def planned_of(asked: Asked) -> Plan:
    """What is done, and what the rest will take where it would run. Raises BadConfig, and the error of an outage."""
    prepared = prepare(asked, for_plan=True)
    if os.environ.get(SERVER) and (address := os.environ.get(JOB_SERVER)):
        from gristmill.orchestration.kickoff.cluster import room_of_cluster

        return prepared.plan(room_of_cluster(prepared.config.run, address))
    return prepared.plan()


def on_this_machine(prepared: Prepared, logs: Path | None = None) -> list[End]:
    """Brings the nodes in this process, or in processes of their own, as `run.nodes` says."""
    alone = prepared.config.run.nodes == 0
    with Shown(len(prepared.chosen), stderr(), logs, live=not alone) as shown:
        processes = Processes(shown.line)
        bring = prepared.bringing(here if alone else processes)
        start = inline if alone else threaded
        try:
            return run_graph(prepared.graph, prepared.chosen, prepared.done, bring, start, prepared.room, shown)
        finally:
            processes.stop()


def _failed(error: Exception | str, code: int) -> int:
    print(f"error: {plain(str(error))}", file=sys.stderr, flush=True)
    return code
