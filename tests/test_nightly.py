"""The nightly job against a stack of its own: cancelled, and killed in every part.

One stack serves all tests. Two lakes: one where the request is cancelled, and one where the same request loses its
flow, its worker, all of its stack and its driver, and is then done. What its schedule does: tests/test_flows.py.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import web
from house import SMALL, House, by_hand, deploy, prefect_yaml, stack_at
from strangers import as_a_stranger, is_loopback, listening, needs_root
from waiting import PATIENCE, until

from gristmill.orchestration.stack import processes
from gristmill.orchestration.stack.folder import PARTS
from gristmill.orchestration.stack.stack import up


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[House]:
    with stack_at(tmp_path_factory.mktemp("nightly"), sample) as stack:
        nightly = prefect_yaml()[1]["nightly"]
        nightly["parameters"] |= {"settings": stack.settings, "lake": stack.lake("hurt")}
        deploy(stack, [by_hand(nightly)])
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


def test_after_kill_9_of_every_part_the_doctor_says_what_is_lost_and_the_version_comes_once(
    house: House, sample: Path
) -> None:
    stack = house.stack
    first = house.start("hurt")
    house.held("hurt", first, receipts=3)
    killed(stack.process("worker"))  # `up` leaves alone what still runs
    assert house.versions("hurt") == []
    up(stack, say=lambda line: None)  # the repair: starts what is missing

    run = house.start("hurt")
    driver = house.held("hurt", run, receipts=3)  # its own: the first one's was stopped by it
    (job,) = house.live("hurt")
    flow = house.flow(run)
    killed(stack.process("worker"))
    killed(flow)  # in this order, so that nobody sees the end of the flow
    assert house.state(run)[0] == "Running"
    checks = house.doctor()
    assert "it was killed, or ended by itself; no flow run starts meanwhile" in checks["worker"]
    (name,) = (name for name in checks if name.startswith("flow run "))
    assert "is Running, but its process is gone -> `grist up`" in checks[name]
    assert "its flow run" in checks[f"job {job}"] and "`ray job stop`" in checks[f"job {job}"]
    killed(stack.process("ray"))
    assert "its jobs died with it and are forgotten" in house.doctor()["ray"]
    killed(stack.process("prefect"))
    checks = house.doctor()
    assert "no schedule fires meanwhile" in checks["prefect"] and "`grist up`" in checks["flow runs"]
    lines: list[str] = []
    up(stack, cpus=2, say=lines.append)
    assert any("but its process is gone: it is Crashed now" in line for line in lines), lines
    name, message = house.state(run)
    assert name == "Crashed" and "died together with its worker" in message
    parts = ("flow run", "job", "ray", "prefect", "worker")
    assert not [check for check in house.doctor() if check.startswith(parts)]
    until(lambda: not processes.alive(driver), "the end of the driver with its head")

    last = house.start("hurt")
    until(lambda: processes.send(house.held("hurt", last), signal.SIGKILL), "a driver to be killed")
    assert house.versions("hurt") == []
    assert house.ended(last) == (
        "Completed",
        f"web@v1: committed by this run ({house.jobs('hurt')[-1]['submission_id']})",
    )
    until(lambda: not house.live("hurt"), "no live job")
    alone = web.run(house.folder / "alone", web.crawl_files(sample), scan={"chunk_bytes": SMALL})
    assert house.versions("hurt") == [alone.manifest.digest]


def killed(process: processes.Identity | None) -> None:
    """Kills a process that is there, and waits for its death."""
    assert process is not None and processes.send(process, signal.SIGKILL)
    until(lambda: not processes.alive(process), "its death")
