"""What a schedule does, what follows from a version, what holds it, who ends a kickoff, and that no secret is shown: on
one stack.

The repository's own prefect.yaml is deployed, with a schedule of every minute and data of the test. What is started by
an event is a tokenizer instead of a training, because it takes seconds. Planted secrets are in the environment of all.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import web
import yaml
from house import House, by_hand, deploy, prefect_yaml, stack_at
from waiting import PATIENCE, until

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.announce import COMMITTED
from gristmill.orchestration.jobs import FLOW_RUN
from gristmill.orchestration.stack import processes
from gristmill.orchestration.stack.stack import up

PLANTED = "planted-7Kq2vX9wLmZ4"
TOLD: list[str] = []
"""What the webhook was sent."""


class Webhook(BaseHTTPRequestHandler):
    """Takes what is sent."""

    def do_POST(self) -> None:
        """As a chat's webhook."""
        TOLD.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


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
            "lake": house.lake("scheduled"),
        }
        mixture["build"][0]["gristmill.orchestration.deploy.check"]["parameters"] = mixture["parameters"]
        deploy(house, [nightly, by_hand(nightly), mixture])
        yield house


def runs_of(house: House, name: str, *states: str) -> list[dict[str, Any]]:
    query = {"flow_runs": {"deployment_id": {"any_": [house.deployment(name)]}}, "sort": "START_TIME_ASC"}
    if states:
        query["flow_runs"]["state"] = {"type": {"any_": list(states)}}  # type: ignore[index]
    return list(house.ask("/flow_runs/filter", query))


def announced(house: House, lake: str) -> list[str]:
    """Versions of a lake that an event tells of."""
    events = house.ask("/events/filter", {"filter": {"event": {"name": [COMMITTED]}}, "limit": 50})["events"]
    resources = [event["resource"] for event in events]
    return [resource["gristmill.version"] for resource in resources if resource["gristmill.lake"] == house.lake(lake)]


def test_the_schedule_fires_and_each_version_starts_what_is_made_from_it_by_an_event(
    house: House, sample: Path
) -> None:
    def completed(name: str) -> list[dict[str, Any]]:
        failed = runs_of(house, "nightly", "FAILED", "CRASHED") + runs_of(house, "mixture", "FAILED", "CRASHED")
        assert not failed, [run["state"]["message"] for run in failed]
        return runs_of(house, name, "COMPLETED")

    def nights() -> list[str]:
        """What runs of the schedule's own making came to."""
        runs = completed("nightly")
        assert {run["created_by"]["type"] for run in runs} <= {"SCHEDULE"}
        return [run["state"]["message"] for run in runs]

    until(nights, "the first night")
    # on a busy machine the next run attaches to the job of the first, and may end before it
    assert nights()[0].startswith("web@v1: committed")
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

    until(lambda: len(completed("mixture")) >= 2, "what the events of both versions start")
    for number, run in enumerate(runs_of(house, "mixture"), start=1):  # two, and no more
        assert run["created_by"]["type"] == "AUTOMATION" and run["parameters"]["version"] == f"web@v{number}"
        assert run["state"]["message"].startswith(f"tokenizer@v{number}: committed by this run")
    until(lambda: len(announced(house, "scheduled")) >= 4, "the events in the server's store")
    every = ["tokenizer@v1", "tokenizer@v2", "web@v1", "web@v2"]
    assert sorted(announced(house, "scheduled")) == every  # each of them once
    (deployment,) = [d for d in house.ask("/deployments/filter", {}) if d["name"] == "nightly"]
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    # its stages are task runs, in the order in which they ran, with what they came to
    first = runs_of(house, "nightly", "COMPLETED")[0]
    query = {"flow_runs": {"id": {"any_": [first["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    stages = house.ask("/task_runs/filter", query)
    names = [stage["name"] for stage in stages]
    assert {"scan", "extract", "shards", "ledger"} <= set(names) and names.index("scan") < names.index("ledger")
    assert {stage["state_type"] for stage in stages} == {"COMPLETED"}
    assert any("records" in (stage["state"]["message"] or "") for stage in stages)
    assert first["id"] in house.prefect("operations", "prefect flow-run ls")
    assert "minhash" in house.prefect("operations", "prefect artifact inspect")


def test_a_version_that_a_gate_holds_starts_nothing_and_somebody_is_told(house: House) -> None:
    parameters = {"settings": house.settings, "lake": house.lake("held"), "gates": {"min_kept_rate": 0.99}}
    run = house.start("held", parameters=parameters)
    name, message = house.ended(run)
    assert name == "Held" and message.startswith("web@v1: committed by this run")
    assert "held back: kept rate: web@v1 kept" in message and "`accept: [web@v1]`" in message
    assert house.versions("held") and announced(house, "held") == []
    until(lambda: any("held back: kept rate" in text for text in TOLD), "the webhook to be told")
    assert house.ended(house.start("held", parameters={**parameters, "accept": ["web@v1"]}))[0] == "Completed"
    until(lambda: announced(house, "held") == ["web@v1"], "the event in the server's store")


def pages_and_words(house: House) -> Path:
    """A kickoff of the crawl and of what is made of it."""
    settings = {"inputs": [f"{house.folder}/crawl/*"], "max_quarantine_rate": 0.2, "scan": {"chunk_bytes": 40_000}}
    web = {"config": "web", "recipe": settings | {"shards": {"target_bytes": 100_000}}, "run": {"workers": 2}}
    words = {
        "config": "tokenizer",
        "recipe": {"dataset": "words", "sources": ["node:web"], "train": {"vocab_size": 300}},
    }
    file = house.folder / "kickoff.yaml"
    run = {"nodes": 2, "each": {"workers": 0}}
    file.write_text(yaml.safe_dump({"kickoff": "two", "run": run, "nodes": {"web": web, "words": words}}))
    return file


def begun(house: House, config: Path) -> tuple[Any, str, processes.Identity]:
    """A kickoff, its flow run, and the driver of its first node, stopped in the middle. What another one left running
    is stopped before that."""
    left = house.live("kicked")
    kickoff = house.kickoff("kicked", config)
    until(lambda: not set(left) & set(house.live("kicked")), "the end of what was left", by=kickoff)
    run = house.kickoff_run()
    return kickoff, run, house.held("kicked", run, receipts=1)


def test_a_kickoff_of_a_shell_is_cancelled_killed_and_left_by_its_servers_and_is_done_once(house: House) -> None:
    config = pages_and_words(house)
    kickoff, run, driver = begun(house, config)
    house.prefect("operations", "prefect flow-run cancel", instead={"ID": run})
    _, errors = kickoff.communicate(timeout=PATIENCE)
    assert kickoff.returncode == 5 and "error: cancelled in Prefect; what is done is kept" in errors
    assert house.state(run) == ("Cancelled", "what is done is kept: the same command goes on")
    assert [job["status"] for job in house.jobs("kicked")] == ["STOPPED"] and not processes.alive(driver)

    kickoff, run, _ = begun(house, config)
    kickoff.kill()
    kickoff.communicate(timeout=PATIENCE)
    checks = house.doctor()
    (name,) = (name for name in checks if name.startswith("flow run "))
    assert "is Running, but its process is gone -> `grist up`" in checks[name] and "the same command" in checks[name]
    assert "`ray job stop`" in checks[f"job {house.live('kicked')[0]}"]

    kickoff, again, _ = begun(house, config)
    assert house.state(run) == ("Crashed", "its process died; what it did is kept, and the same command goes on")
    for part, lost in (("ray", "a flow run that waits submits again"), ("prefect", "Flow runs go on")):
        process = house.stack.process(part)
        assert process is not None and processes.send(process, SIGKILL)
        until(lambda process=process: not processes.alive(process), "its death")  # type: ignore[misc]
        assert lost in house.doctor()[part]
    up(house.stack, cpus=2, say=lambda line: None)
    answer, errors = kickoff.communicate(timeout=PATIENCE)
    assert kickoff.returncode == 0, errors
    assert {end["node"]: end["state"] for end in json.loads(answer)["nodes"]} == {"web": "made", "words": "made"}
    assert house.ended(again)[0] == "Completed"
    cut = {"chunk_bytes": 40_000}
    alone = web.run(house.folder / "alone-kicked", web.crawl_files(house.folder), scan=cut).manifest.digest
    assert house.versions("kicked") == [alone]
    answer, errors = house.kickoff("kicked", config).communicate(timeout=PATIENCE)
    assert {end["state"] for end in json.loads(answer)["nodes"]} == {"there"}, errors
    # what waits for a version of `web` was started by it, in its lake, and each version is announced once
    until(lambda: "tokenizer@v1" in announced(house, "kicked"), "what an event starts")
    assert sorted(announced(house, "kicked")) == ["tokenizer@v1", "web@v1", "words@v1"]


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
