"""Requests, ids, reaping and the flow's decisions, without a server."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import web
from fake_ray import CONF, server, wanted

from gristmill.lake.store.opening import open_store
from gristmill.lake.store.outage import Patience
from gristmill.orchestration import jobs as jobs_module
from gristmill.orchestration.jobs import FLOW_RUN, REQUEST, Job, result_line, stale
from gristmill.orchestration.stack import processes
from gristmill.orchestration.stack.owner import OWNER, this_process
from gristmill.orchestration.wanted import request_key
from gristmill.pipelines.ask import committed
from gristmill.pipelines.command import Request, main, resolve
from gristmill.pipelines.settings.config import BadConfig


def test_a_request_is_its_recipe_and_its_lake_and_no_run_setting():
    base = wanted().key
    assert wanted("run.workers=9", "run.shared_filesystem=true").key == base
    others = [wanted("recipe.gopher_quality.min_words=9"), wanted("recipe.inputs=[/other/*]"), wanted(lake="/other")]
    assert len({base, *(other.key for other in others)}) == 4


def test_the_resolved_dict_asks_for_the_same_as_the_file(tmp_path):
    request = wanted()
    data = json.loads(json.dumps(request.config.model_dump(mode="json")))
    again = resolve(Request(data), in_job=True)
    assert again == request.config and request_key(again) == request.key


def test_ids_name_dataset_request_and_attempt():
    request = wanted("recipe.dataset=web-small")
    assert request.id(3) == f"web-small-{request.key[:12]}-3"
    assert request.attempt(request.id(12)) == 12
    assert wanted().attempt(request.id(12)) == 0 and request.attempt(f"x{request.id(1)}") == 0


def test_the_entrypoint_survives_a_shell_and_has_a_limit(tmp_path):
    request = wanted('recipe.inputs=["/crawl/it\'s $HOME/*"]')
    script = request.entrypoint.replace(
        "python -m gristmill.pipelines", f"{sys.executable} -c 'import sys; print(sys.argv[-1])'", 1
    )
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed)["recipe"]["inputs"] == ["/crawl/it's $HOME/*"]
    many = ",".join(f"/crawl/part-{n:06}.warc.gz" for n in range(5000))
    with pytest.raises(BadConfig, match="single files"):
        _ = wanted(f"recipe.inputs=[{many}]").entrypoint


def test_relative_paths_are_refused_for_a_job():
    with pytest.raises(BadConfig, match="relative"):
        resolve(Request(CONF, ("recipe.inputs=[crawl/*]",), "/lake"), in_job=True)
    with pytest.raises(BadConfig, match="relative"):
        resolve(Request(CONF, ("recipe.inputs=[/crawl/*]",), "lake"), in_job=True)


@pytest.mark.parametrize("text", ["[1]", "{", "3"])
def test_a_config_that_is_no_json_object_is_a_usage_error(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--config-json", text])
    assert stopped.value.code == 2 and "--config-json" in capsys.readouterr().err


def test_config_json_runs_what_the_file_runs(sample, tmp_path, capsys):
    config = web.config(web.crawl_files(sample)).model_dump(mode="json")
    config["run"] |= {"lake": str(tmp_path / "lake"), "workers": 0}
    assert main(["run", "--config-json", json.dumps(config)]) == 0
    result = result_line(capsys.readouterr().out.splitlines())
    assert result is not None and result["new"] and result["version"] == 1


def test_committed_asks_and_runs_nothing(sample, tmp_path, monkeypatch):
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the sample may have been written just now
    config = web.config(web.crawl_files(sample))
    store = open_store(str(tmp_path / "lake"))
    assert committed(config, store) is None
    manifest = web.run(tmp_path / "lake", web.crawl_files(sample)).manifest
    assert committed(config, store) == manifest
    assert committed(web.config(web.crawl_files(sample)[1:]), store) is None
    other = web.config(web.crawl_files(sample), gopher_quality={"min_words": 7})
    assert committed(other, store) is None
    with pytest.raises(BadConfig, match="does not exist"):
        committed(web.config([tmp_path / "nothing"]), store)


def owned(id: str, run: str, pid: int, host: str = platform.node(), status: str = "RUNNING") -> Job:
    _, _, started, boot = json.loads(this_process())
    owner = json.dumps([host, pid, started, boot])
    return Job(id, status, metadata={REQUEST: "k", FLOW_RUN: run, OWNER: owner})


def test_jobs_are_reaped_only_when_their_flow_run_is_over():
    me = os.getpid()
    jobs = [
        owned("over", "run-over", me),
        owned("alive", "run-alive", me),
        owned("killed", "run-alive", 2**22 + 1),  # a pid that no Linux gives
        owned("elsewhere", "run-alive", 2**22 + 1, host="another"),
        owned("another-server", "run-unknown", me),
        owned("ended", "run-over", me, status="SUCCEEDED"),
        Job("by-hand", "RUNNING", metadata={}),
        Job("not-ours", "RUNNING", metadata={FLOW_RUN: "run-over"}),
    ]
    ended = {"run-over": True, "run-alive": False, "run-unknown": None}
    assert [job.id for job in stale(jobs, lambda run: ended[run])] == ["over", "killed"]


def test_the_result_is_the_last_line_that_is_one():
    lines = ['{"dataset": "web", "version": 1}', '{"dataset":', "12:00 INFO done", '{"plan": []}']
    assert result_line(lines) == {"dataset": "web", "version": 1}
    assert result_line(["nothing"]) is None


def test_a_live_job_of_the_same_request_is_attached_to():
    request = wanted()
    jobs, fake = server([Job("other", "RUNNING", metadata={REQUEST: request.key, FLOW_RUN: "a"})])
    assert jobs.submit(request, "b", lambda id: None) == ("other", False)
    assert jobs.submit(request, "a", lambda id: None) == ("other", True)
    assert fake.submitted == []


def test_the_next_attempt_gets_the_next_number_and_a_taken_id_is_not_an_error(monkeypatch):
    monkeypatch.setattr(jobs_module.time, "sleep", lambda seconds: None)
    request = wanted()
    ended = Job(request.id(2), "FAILED", metadata={REQUEST: request.key})
    refusals = ["Job with submission_id x already exists", "No available agent to submit job"]
    jobs, fake = server([ended], refusals)
    heard: list[str] = []
    assert jobs.submit(request, "a", heard.append) == (request.id(4), True)
    assert fake.submitted == [request.id(3), request.id(4), request.id(4)]
    assert heard == [request.id(3), "", request.id(4), "", request.id(4)]
    jobs, _ = server([], ["out of luck"])
    with pytest.raises(RuntimeError, match="out of luck"):
        jobs.submit(request, "a", heard.append)


def outcomes(monkeypatch, *ends: tuple[str, int | None, bool], found_after: int = 99) -> tuple[Any, list[float]]:
    """`bring` with these ends of jobs; the lake has the version after so many jobs."""
    from gristmill.orchestration import flows

    todo, ran, slept = list(ends), [0], list[float]()

    def run_job(*args: Any) -> tuple[Job, bool, list[str]]:
        ran[0] += 1
        status, code, submitted_here = todo.pop(0)
        return Job("job", status, code), submitted_here, ["error: the reason"]

    monkeypatch.setattr(flows, "run_job", run_job)
    monkeypatch.setattr(flows, "all_committed", lambda config, store: ["web@v1"] if ran[0] >= found_after else None)
    log, patience = logging.getLogger("test"), Patience("store", 100, slept.append)
    return (lambda: flows.bring(wanted(), None, None, 3, log, patience)), slept  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [1, 2, 3])
def test_bad_config_gates_and_defects_fail_at_once_with_the_message(monkeypatch, code):
    from gristmill.orchestration.flows import JobFailed

    bring, _ = outcomes(monkeypatch, ("FAILED", code, True))
    with pytest.raises(JobFailed, match=f"exit code {code}: error: the reason"):
        bring()


@pytest.mark.parametrize("code", [4, 5])
def test_conflicts_and_incomplete_work_are_tried_again_a_bounded_number_of_times(monkeypatch, code):
    from gristmill.orchestration.flows import JobFailed

    bring, slept = outcomes(monkeypatch, *[("FAILED", code, True)] * 3)
    with pytest.raises(JobFailed, match="3 jobs did not finish it"):
        bring()
    assert slept == [10, 20]


@pytest.mark.parametrize("end", [("FAILED", -9), ("FAILED", 137), ("FAILED", None), ("LOST", None)])
def test_a_killed_driver_is_replaced_at_once(monkeypatch, end):
    bring, slept = outcomes(monkeypatch, (*end, True), ("SUCCEEDED", 0, False), found_after=2)
    assert bring()[0] == ["web@v1"] and slept == []


def test_jobs_of_other_flow_runs_do_not_use_up_attempts(monkeypatch):
    ends = [("STOPPED", None, False)] * 5 + [("SUCCEEDED", 0, False)]
    bring, _ = outcomes(monkeypatch, *ends, found_after=6)
    assert bring()[0] == ["web@v1"]


def test_a_job_stopped_by_hand_is_not_started_again(monkeypatch):
    from gristmill.orchestration.flows import JobFailed

    bring, _ = outcomes(monkeypatch, ("STOPPED", None, True))
    with pytest.raises(JobFailed, match="was stopped"):
        bring()


def test_a_failure_that_its_state_says_has_no_traceback_in_the_log_and_others_have():
    from prefect.exceptions import FailedRun

    from gristmill.orchestration.flows import OneLine

    def record(error: Exception) -> logging.LogRecord:
        return logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, "exited", (), (type(error), error, None))

    assert any(isinstance(installed, OneLine) for installed in logging.getLogger("prefect.flow_runs").filters)
    assert not OneLine().filter(record(FailedRun("recipe.nope: unknown key")))
    assert OneLine().filter(record(TypeError("a defect")))


def test_what_a_job_says_last_is_its_reason():
    from gristmill.orchestration.flows import _reason

    assert _reason(["12:00 INFO begun", "error: first", "error: a gate failed:", "  mostly x"]) == (
        "error: a gate failed:\n  mostly x"
    )
    assert _reason([str(n) for n in range(9)]) == "4\n5\n6\n7\n8"


def test_the_funnel_says_what_came_in_and_why_it_left(sample, tmp_path):
    from gristmill.orchestration.funnel import funnel

    manifest = web.run(tmp_path / "lake", web.crawl_files(sample)).manifest
    text = funnel(manifest)
    first = manifest.funnel[0]
    assert f"## {manifest}" in text and f"| {first.stage} | {first.received:,} | {first.passed:,} |" in text
    assert sum(line.startswith("| ") and not line.startswith("| |") for line in text.splitlines()) == (
        len(manifest.funnel) + 1
    )


def test_reasons_stand_in_lines_that_a_page_does_not_cut():
    from gristmill.orchestration.funnel import LONGEST, in_lines

    reasons = [f"too_many_of_these_{number} {number}" for number in range(12)]
    lines = in_lines(reasons)
    assert len(lines) > 1 and max(map(len, lines)) <= LONGEST + 1  # the comma
    assert " ".join(lines) == ", ".join(reasons)
    assert in_lines([]) == [""] and in_lines(["x" * 99]) == ["x" * 99]


def test_the_command_starts_without_ray_and_prefect():
    code = "import sys, orchestration.cli; print([m for m in ('ray', 'prefect') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CONF.parents[1])
    assert run.stdout == "[]\n"


def test_this_process_owns_what_it_submits():
    host, pid, started, boot = json.loads(this_process())
    assert host == platform.node() and processes.alive(processes.Identity(pid, started, boot))
