"""Nights on a stack of their own: what its schedule starts, what follows from a version and what holds it, job and
kickoff cancelled and killed in every part, and that nobody else gets in and no secret is shown.

One stack serves all tests, for it takes forty seconds of CPU to start. The repository's own prefect.yaml is deployed,
with a schedule of every minute and data of the test. What is started by an event is a tokenizer instead of a training,
because it takes seconds. Planted secrets are in the environment of all.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psutil
import pytest
import web
from house import SMALL, TOLD, House, Webhook, by_hand, deploy, killed, prefect_yaml, stack_at, until
from kickoffs import write_two
from strangers import as_a_stranger, ask_without_token, is_loopback, listening, needs_root
from waiting import PATIENCE

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.jobs import FLOW_RUN
from gristmill.orchestration.stack import processes
from gristmill.orchestration.stack.folder import PARTS
from gristmill.orchestration.stack.stack import up

PLANTED = "planted-7Kq2vX9wLmZ4"


@pytest.fixture(scope="module")
def webhook() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{PLANTED}-address"
        server.shutdown()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, sample: Path, webhook: str) -> Iterator[House]:
    secrets = {"AWS_SECRET_ACCESS_KEY": f"{PLANTED}-aws", "HF_TOKEN": f"{PLANTED}-hub", "GRIST_NOTIFY_URL": webhook}
    with stack_at(tmp_path_factory.mktemp("flows"), sample, secrets) as house:
        _, files = prefect_yaml()
        nightly, mixture = files["nightly"], files["mixture"]
        assert nightly["schedules"][0]["cron"] == "0 2 * * *"
        nightly["schedules"][0]["cron"] = "* * * * *"
        nightly["parameters"] |= {"settings": house.growing, "lake": house.lake("scheduled")}
        mixture["parameters"] = {
            "config": "conf/tokenizer.yaml",
            "settings": ["recipe.sources=['${web}']", "recipe.train.vocab_size=300", "run.workers=0"],
            "lake": house.lake("elsewhere"),  # an event says where its version is
        }
        mixture["build"][0]["gristmill.orchestration.deploy.check"]["parameters"] = mixture["parameters"]
        # half a minute of CPU each: what is made from the other versions is looked at by nobody
        mixture["triggers"][0]["match"] |= {"gristmill.version": "web@v1", "gristmill.lake": house.lake("scheduled")}
        deploy(house, [nightly, by_hand(nightly), mixture])
        yield house


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


def test_the_schedule_fires_by_itself_and_a_version_starts_what_is_made_from_it_by_an_event(
    house: House, sample: Path
) -> None:
    def completed(name: str) -> list[dict[str, Any]]:
        runs = house.runs_of(name, "COMPLETED", "FAILED", "CRASHED")
        assert {run["state_type"] for run in runs} <= {"COMPLETED"}, [run["state"]["message"] for run in runs]
        return runs

    def nights() -> list[str]:
        """What runs of the schedule's own making came to."""
        runs = completed("nightly")
        assert {run["created_by"]["type"] for run in runs} <= {"SCHEDULE"}
        return [run["state"]["message"] for run in runs]

    # on a busy machine the next run attaches to the job of the first, and may end before it
    assert until(nights, "the first night")[0].startswith("web@v1: committed")
    shutil.copy(sample / "night2" / "part-0000.warc.gz", house.folder / "arriving")
    (house.folder / "arriving").rename(house.folder / "crawl" / "night2.warc.gz")  # never seen half written
    # a run may have begun before the file was there, or attach to another's job
    until(lambda: any(message.startswith("web@v2: committed") for message in nights()), "the second version")
    house.ask(f"/deployments/{house.deployment('nightly')}/pause_deployment", {})
    versions = Versions(open_store(house.lake("scheduled")))
    second = versions.manifest("web", 2)
    assert [Path(file.names[0]).name for file in second.inputs] == ["night2.warc.gz"] and second.parent.version == 1
    artifacts = house.ask("/artifacts/filter", {"artifacts": {"key": {"any_": ["funnel-web"]}}})
    assert any("| minhash |" in artifact["data"] and "## web@v2" in artifact["data"] for artifact in artifacts)
    again = house.ended(house.start("scheduled", house.growing))
    assert again == ("Completed", "web@v2: nothing new, no job was needed")
    nightly_jobs = [job for job in house.jobs("scheduled") if job["submission_id"].startswith("web-")]
    assert len(nightly_jobs) == 2 and versions.numbers("web") == [1, 2]

    (run,) = until(lambda: completed("mixture"), "what an event starts")
    assert run["created_by"]["type"] == "AUTOMATION" and run["parameters"]["version"] == "web@v1"
    assert run["state"]["message"].startswith("tokenizer@v1: committed by this run")
    until(lambda: len(house.announced("scheduled")) >= 3, "the events in the server's store")
    assert sorted(house.announced("scheduled")) == ["tokenizer@v1", "web@v1", "web@v2"]  # each of them once
    assert len(house.runs_of("mixture")) == 1
    (deployment,) = [d for d in house.ask("/deployments/filter", {}) if d["name"] == "nightly"]
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    # its stages are task runs, in the order in which they ran, with what they came to
    first = house.runs_of("nightly", "COMPLETED")[0]["id"]
    query = {"flow_runs": {"id": {"any_": [first]}}, "sort": "EXPECTED_START_TIME_ASC"}
    stages = house.ask("/task_runs/filter", query)
    names = [stage["name"] for stage in stages]
    assert {"scan", "extract", "shards", "ledger"} <= set(names) and names.index("scan") < names.index("ledger")
    assert {stage["state_type"] for stage in stages} == {"COMPLETED"}
    assert any("records" in (stage["state"]["message"] or "") for stage in stages)
    assert first in house.prefect("operations", "prefect flow-run ls")
    assert "minhash" in house.prefect("operations", "prefect artifact inspect")


def test_a_version_that_a_gate_holds_starts_nothing_and_somebody_is_told(house: House) -> None:
    parameters = {"settings": house.settings, "lake": house.lake("held"), "gates": {"min_kept_rate": 0.99}}
    run = house.start("held", parameters=parameters)
    name, message = house.ended(run)
    assert name == "Held" and message.startswith("web@v1: committed by this run")
    assert "held back: kept rate: web@v1 kept" in message and "`accept: [web@v1]`" in message
    assert house.versions("held") and house.announced("held") == []
    until(lambda: any("held back: kept rate" in text for text in TOLD), "the webhook to be told")
    assert house.ended(house.start("held", parameters={**parameters, "accept": ["web@v1"]}))[0] == "Completed"
    until(lambda: house.announced("held") == ["web@v1"], "the event in the server's store")


def test_cancel_and_kill_9_of_the_flow_stop_the_ray_job(house: House) -> None:
    runs = {name: house.start(name) for name in ("cancelled", "hurt")}  # side by side, to save a minute
    drivers = [house.held("cancelled", runs["cancelled"]), house.held("hurt", runs["hurt"], receipts=3)]
    house.ask(f"/flow_runs/{runs['cancelled']}/set_state", {"state": {"type": "CANCELLING"}})
    assert processes.send(house.flow(runs["hurt"]), SIGKILL)
    assert house.ended(runs["cancelled"])[0] == "Cancelled"  # stopped on its way out
    assert house.ended(runs["hurt"])[0] == "Crashed"  # stopped by the worker's hook
    for name in runs:
        until(lambda name=name: not house.live(name), "the job to stop")  # type: ignore[misc]
        assert [job["status"] for job in house.jobs(name)] == ["STOPPED"]
        assert house.versions(name) == []
    assert not any(processes.alive(driver) for driver in drivers)


def begun(house: House, config: Path) -> tuple[Any, str, processes.Identity]:
    """A kickoff, its flow run, and the driver of its first node, stopped in the middle. What another one left running
    is stopped before that."""
    left = house.live("kicked")
    kickoff = house.kickoff("kicked", config)
    until(lambda: not set(left) & set(house.live("kicked")), "the end of what was left", by=kickoff)
    run = house.kickoff_run()
    return kickoff, run, house.held("kicked", run, receipts=1)


def cancelled(house: House, config: Path) -> None:
    """Of a kickoff, what its shell and the servers say then."""
    kickoff, run, driver = begun(house, config)
    house.prefect("operations", "prefect flow-run cancel", instead={"ID": run})
    _, errors = kickoff.communicate(timeout=PATIENCE)
    assert kickoff.returncode == 5 and "error: cancelled in Prefect; what is done is kept" in errors
    assert house.state(run) == ("Cancelled", "what is done is kept: the same command goes on")
    assert [job["status"] for job in house.jobs("kicked")] == ["STOPPED"] and not processes.alive(driver)


def abandoned(house: House, config: Path) -> str:
    """Of a kickoff that is killed, what the doctor says then. -> Its flow run."""
    kickoff, run, _ = begun(house, config)
    kickoff.kill()
    kickoff.communicate(timeout=PATIENCE)
    checks = house.doctor()
    (name,) = (name for name in checks if name.startswith("flow run "))
    assert "is Running, but its process is gone -> `grist up`" in checks[name] and "the same command" in checks[name]
    assert "`ray job stop`" in checks[f"job {house.live('kicked')[0]}"]
    return run


def every_part_dies(house: House) -> None:
    """One after the other, in the middle of a flow run, and what the doctor says each time; then `up`."""
    stack = house.stack
    runs_on = [stack.process(part) for part in ("ray", "prefect")]
    killed(stack.process("worker"))
    up(stack, say=lambda line: None)  # the repair: starts what is missing
    assert [stack.process(part) for part in ("ray", "prefect")] == runs_on

    run = house.start("hurt")
    driver = house.held("hurt", run)
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
    ray = house.doctor()["ray"]
    assert "its jobs died with it and are forgotten" in ray and "a flow run that waits submits again" in ray
    killed(stack.process("prefect"))
    checks = house.doctor()
    assert "no schedule fires meanwhile" in checks["prefect"] and "Flow runs go on" in checks["prefect"]
    assert "`grist up`" in checks["flow runs"]
    lines: list[str] = []
    up(stack, cpus=2, say=lines.append)
    assert any("but its process is gone: it is Crashed now" in line for line in lines), lines
    name, message = house.state(run)
    assert name == "Crashed" and "died together with its worker" in message
    until(lambda: not processes.alive(driver), "the end of the driver with its head")
    assert house.versions("hurt") == []


def test_a_kickoff_goes_on_while_every_part_dies_and_each_version_comes_once(house: House, sample: Path) -> None:
    """A kickoff that was cancelled and killed before; the next one is there when the servers of its stack die, and
    together with it a flow run, and the worker, and are started again: half a minute of CPU, so all of it at once."""
    config = write_two(house.folder)
    cancelled(house, config)
    run = abandoned(house, config)
    kickoff, again, _ = begun(house, config)
    assert house.state(run) == ("Crashed", "its process died; what it did is kept, and the same command goes on")
    every_part_dies(house)
    answer, errors = kickoff.communicate(timeout=PATIENCE)
    assert kickoff.returncode == 0, errors
    assert {end["node"]: end["state"] for end in json.loads(answer)["nodes"]} == {"web": "made", "words": "made"}
    assert house.ended(again)[0] == "Completed"
    cut = {"chunk_bytes": 40_000}
    alone = web.run(house.folder / "alone-kicked", web.crawl_files(house.folder), scan=cut).manifest.digest
    assert house.versions("kicked") == [alone]
    answer, errors = house.kickoff("kicked", config).communicate(timeout=PATIENCE)
    assert {end["state"] for end in json.loads(answer)["nodes"]} == {"there"}, errors
    until(lambda: len(house.announced("kicked")) >= 2, "the events in the server's store")
    assert sorted(house.announced("kicked")) == ["web@v1", "words@v1"]  # each of them once

    last = house.start("hurt")
    until(lambda: processes.send(house.held("hurt", last), SIGKILL), "a driver to be killed")
    assert house.versions("hurt") == []
    ended = house.ended(last)
    job = house.jobs("hurt")[-1]["submission_id"]
    assert ended == ("Completed", f"web@v1: committed by this run ({job})")
    until(lambda: not house.live("hurt"), "no live job")
    alone = web.run(house.folder / "alone", web.crawl_files(sample), scan={"chunk_bytes": SMALL}).manifest.digest
    assert house.versions("hurt") == [alone]
    assert len(house.runs_of("mixture")) == 1, "versions of other lakes start nothing"
    parts = ("flow run", "job", "ray", "prefect", "worker")
    assert not [check for check in house.doctor() if check.startswith(parts)]


def test_no_planted_secret_is_shown_anywhere(house: House) -> None:
    """Parameters, runtime environments, commands, logs and events: all that the servers tell, and all files of logs."""
    refused = house.start("refused", parameters={"settings": [f"recipe.inputs=['/x/{PLANTED}-aws']"]})
    assert "the value of $AWS_SECRET_ACCESS_KEY, which Ray and Prefect would show" in house.ended(refused)[1]
    shown = [house.stack.ray.ask("/api/jobs/", timeout=PATIENCE)]
    for what in ("deployments", "task_runs", "artifacts"):
        shown.append(house.ask(f"/{what}/filter", {}))
    shown.append(house.ask("/logs/filter", {"limit": 200, "sort": "TIMESTAMP_DESC"}))
    shown.append(house.ask("/block_documents/filter", {}))
    shown.append([run for run in house.ask("/flow_runs/filter", {}) if run["id"] != refused])
    text = json.dumps(shown)
    assert FLOW_RUN in text and "minhash" in text  # it is what it looks like
    assert PLANTED not in text
    logs = list((house.stack.folder / "logs").iterdir())
    session = house.stack.ray_folder
    assert session is not None
    logs += [path for path in session.rglob("*") if path.is_file() and path.suffix in (".log", ".out", ".err")]
    assert len(logs) > 5
    assert [path.name for path in logs if PLANTED.encode() in path.read_bytes()] == []
    lines = [house_line for process in house.stack.family() for house_line in [_command(process)]]
    assert not any(PLANTED in line for line in lines)


def _command(process: processes.Identity) -> str:
    try:
        return (processes.PROC / str(process.pid) / "cmdline").read_text(errors="replace")
    except OSError:
        return ""
