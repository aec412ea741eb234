"""The nightly job against a stack of its own: fired by its schedule, cancelled, and killed in every part.

One stack serves all tests; only the schedule starts runs where the schedule is what is tested. Two lakes: the
schedule's, and one where the same request is cancelled, loses its flow, its worker and its driver, and is then done.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import web
from house import SMALL, House, by_hand, deploy, prefect_yaml, stack_at
from strangers import as_a_stranger, is_loopback, listening, needs_root
from waiting import PATIENCE, until

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.stack import processes
from gristmill.orchestration.stack.folder import PARTS
from gristmill.orchestration.stack.stack import up


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[House]:
    with stack_at(tmp_path_factory.mktemp("nightly"), sample) as stack:
        nightly = prefect_yaml()[1]["nightly"]
        assert nightly["schedules"][0]["cron"] == "0 2 * * *"
        nightly["schedules"][0]["cron"] = "* * * * *"
        nightly["parameters"] |= {"settings": stack.growing, "lake": stack.lake("scheduled")}
        deploy(stack, [nightly, by_hand(nightly)])
        yield stack


def test_everything_listens_on_this_machine_only(house: House) -> None:
    parts = [psutil.Process(identity.pid) for part in PARTS if (identity := house.stack.process(part))]
    everything = [process for part in parts for process in [part, *part.children(recursive=True)]]
    addresses = listening(everything)
    assert len(parts) == 3 and len(addresses) >= 6
    assert not [address for address in addresses if not is_loopback(address)]


@needs_root
def test_another_user_of_this_machine_reaches_neither_code_nor_secrets_nor_jobs(house: House) -> None:
    """Imports first, then another uid: the interpreter itself may lie where that user cannot read."""
    stack, folder = house.stack, house.stack.ray_folder
    assert folder is not None and (folder / "r").stat().st_mode & 0o777 == 0o777  # Ray opened it again
    session = next((folder / "r").glob("session_2*"))
    places = [folder, folder / "r", session, session / "runtime_resources", stack.folder]
    attempts: list[Callable[[], object]] = [partial(os.listdir, place) for place in places]
    attempts += [(session / "planted.py").touch, (stack.folder / "ray-secret").read_text]
    attempts += [partial(ask_without_token, stack.ports[name]) for name in ("ray", "agent")]
    assert as_a_stranger(attempts) == ["PermissionError"] * 9


def ask_without_token(port: int) -> None:
    """GET of the jobs. Raises PermissionError for 401."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET /api/jobs/ HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = connection.recv(100)
    if b" 401 " in answer.split(b"\r\n")[0]:
        raise PermissionError(answer)


def test_cancel_and_kill_9_of_the_flow_stop_the_ray_job(house: House) -> None:
    runs = {name: house.start(name) for name in ("cancelled", "hurt")}  # side by side, to save a minute
    drivers = [house.held("cancelled", runs["cancelled"]), house.held("hurt", runs["hurt"], receipts=3)]
    house.ask(f"/flow_runs/{runs['cancelled']}/set_state", {"state": {"type": "CANCELLING"}})
    assert processes.send(house.flow(runs["hurt"]), signal.SIGKILL)
    assert house.ended(runs["cancelled"])[0] == "Cancelled"  # stopped on its way out
    assert house.ended(runs["hurt"])[0] == "Crashed"  # stopped by the worker's hook
    for name in runs:
        until(lambda name=name: not house.live(name), "the job to stop")  # type: ignore[misc]
        assert [job["status"] for job in house.jobs(name)] == ["STOPPED"]
        assert house.versions(name) == []
    assert not any(processes.alive(driver) for driver in drivers)


def test_the_schedule_fires_by_itself_and_the_next_night_takes_only_what_is_new(house: House, sample: Path) -> None:
    def runs(n: int) -> list[dict[str, Any]]:
        """The first runs that are over, all of the schedule's own making."""
        query = {
            "flow_runs": {
                "deployment_id": {"any_": [house.deployment("nightly")]},
                "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}},
            },
            "sort": "START_TIME_ASC",
        }
        ask = house.ask
        ended = until(lambda: len(r := ask("/flow_runs/filter", query)) >= n and r, f"{n} runs")
        assert {flow_run["state_type"] for flow_run in ended} == {"COMPLETED"}, [
            flow_run["state"]["message"] for flow_run in ended
        ]
        assert {flow_run["created_by"]["type"] for flow_run in ended} == {"SCHEDULE"}
        return [flow_run["state"]["message"] for flow_run in ended]

    # on a busy machine the next run attaches to the job of the first, and may end before it
    assert runs(1)[0].startswith("web@v1: committed")
    new = sample / "night2" / "part-0000.warc.gz"
    shutil.copy(new, house.folder / "arriving")
    (house.folder / "arriving").rename(house.folder / "crawl" / "night2.warc.gz")  # never seen half written
    # a run may have begun before the file was there, or attach to another's job
    until(lambda: any(message.startswith("web@v2: committed") for message in runs(1)), "the second version")
    house.ask(f"/deployments/{house.deployment('nightly')}/pause_deployment", {})
    versions = Versions(open_store(house.lake("scheduled")))
    second = versions.manifest("web", 2)
    assert [Path(file.names[0]).name for file in second.inputs] == ["night2.warc.gz"] and second.parent.version == 1
    assert len(house.jobs("scheduled")) == 2 and versions.numbers("web") == [1, 2]
    artifacts = house.ask("/artifacts/filter", {"artifacts": {"key": {"any_": ["funnel-web"]}}})
    assert any("| minhash |" in artifact["data"] and "## web@v2" in artifact["data"] for artifact in artifacts)
    again = house.ended(house.start("scheduled", house.growing))
    assert again == ("Completed", "web@v2: nothing new, no job was needed")
    assert len(house.jobs("scheduled")) == 2


def test_kill_9_of_the_worker_then_of_the_driver_and_the_version_comes_once(house: House, sample: Path) -> None:
    first = house.start("hurt")
    house.held("hurt", first, receipts=3)
    worker = house.stack.process("worker")
    assert worker is not None and processes.send(worker, signal.SIGKILL)
    until(lambda: not processes.alive(worker), "the worker's death")  # `up` leaves alone what still runs
    assert house.versions("hurt") == []
    up(house.stack, say=lambda line: None)  # the repair: starts what is missing
    print("flow run of the killed worker:", house.state(first), [j["status"] for j in house.jobs("hurt")])
    run = house.start("hurt")
    # of the first job, if the second flow run has not stopped that one yet, or of its own
    until(lambda: processes.send(house.held("hurt", run), signal.SIGKILL), "a driver to be killed")
    assert house.versions("hurt") == []
    assert house.ended(run) == (
        "Completed",
        f"web@v1: committed by this run ({house.jobs('hurt')[-1]['submission_id']})",
    )
    print("flow run of the killed worker:", house.state(first), [j["status"] for j in house.jobs("hurt")])
    until(lambda: not house.live("hurt"), "no live job")
    cut = {"chunk_bytes": SMALL}
    assert house.versions("hurt") == [
        web.run(house.folder / "alone", web.crawl_files(sample), scan=cut).manifest.digest
    ]
