"""Processes by identity, the stack's folder, and what the doctor finds; no server is started."""

from __future__ import annotations

import importlib.abc
import json
import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner
from waiting import until

from gristmill.orchestration.cli.main import app
from gristmill.orchestration.stack import doctor, processes, stack
from gristmill.orchestration.stack.folder import MARK, PORTS, Stack, StackError, private
from gristmill.orchestration.stack.processes import Identity

SLEEP = [sys.executable, "-c", "import time; time.sleep(3600)"]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(3600)"
)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Stack:
    monkeypatch.setenv("GRIST_HOME", str(tmp_path))
    named = Stack.named("here")
    named.folder.mkdir()
    return named


def test_a_reused_pid_is_somebody_else():
    child = subprocess.Popen(SLEEP)
    identity = processes.identify(child.pid)
    assert identity is not None and processes.alive(identity)
    for stranger in (identity._replace(started=identity.started - 1), identity._replace(boot="another boot")):
        assert not processes.alive(stranger)
        assert not processes.send(stranger, signal.SIGKILL)
    assert child.poll() is None  # the stranger's signal did not reach it
    assert processes.send(identity, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert processes.identify(child.pid) is None and not processes.send(identity, signal.SIGKILL)


def test_a_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: processes.identify(child.pid) is None, "the end of the child")
    child.wait()


def test_the_mark_finds_children_that_left_session_and_parent():
    mark = f"test-{os.getpid()}"
    code = f"import subprocess, sys; subprocess.Popen({SLEEP!r}, start_new_session=True)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, MARK: mark}, check=True)
    until(lambda: processes.marked(MARK, mark), "a child to be what it was started as")
    (orphan,) = processes.marked(MARK, mark)
    assert processes.marked(MARK, mark[:-1]) == []
    assert processes.end(lambda: processes.marked(MARK, mark), 5) == 1
    assert not processes.alive(orphan)


def test_who_ignores_sigterm_is_killed():
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    identity = processes.identify(child.pid)
    assert identity is not None
    assert processes.end(lambda: [identity] if processes.alive(identity) else [], 0.3) == 1
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()


def test_secrets_are_for_this_user_only_and_stay(here):
    private(here.folder / "ray-secret", "of-the-first")
    private(here.folder / "ray-secret", "of-the-second")
    assert here.secret("ray") == "of-the-first"
    assert (here.folder / "ray-secret").stat().st_mode & 0o777 == 0o600
    assert "of-the-first" not in repr(here.ray) and "of-the-first" not in json.dumps(here.exports())


def test_ports_are_kept_and_a_taken_one_is_replaced(here):
    stack._prepare(here, dict.fromkeys(PORTS, 0))
    ports = here.ports
    assert len(set(ports.values())) == len(PORTS)
    stack._prepare(here, {})
    assert here.ports == ports
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", ports["ray"]))
        other.listen()
        stack._prepare(here, {})
    assert here.ports["ray"] != ports["ray"] and here.ports["prefect"] == ports["prefect"]


def test_down_ends_what_was_started_and_nobody_else(here):
    stack._prepare(here, {})
    child = subprocess.Popen(SLEEP, env={**os.environ, MARK: here.mark("ray")})
    stranger = subprocess.Popen(SLEEP)
    identity = processes.identify(stranger.pid)
    assert identity is not None
    here.write(parts={"ray": Identity(identity.pid, identity.started - 1, identity.boot)})  # its pid was used again
    assert stack.down(here, say=lambda line: None) == 1
    assert child.wait() == -signal.SIGTERM and stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert stack.down(here, say=lambda line: None) == 0


def test_what_a_killed_part_left_behind_is_ended_before_it_is_started_again(here, monkeypatch):
    stack._prepare(here, {})
    left, flow = (subprocess.Popen(SLEEP, env={**os.environ, MARK: here.mark(part)}) for part in ("ray", "worker"))
    worker = processes.identify(flow.pid)
    here.write(parts={"worker": worker})  # runs

    def stop(*args: object) -> None:
        raise RuntimeError("far enough")

    monkeypatch.setattr(stack, "_prepare", stop)
    with pytest.raises(RuntimeError, match="far enough"):
        stack.up(here, say=lambda line: None)
    assert left.wait() == -signal.SIGTERM and flow.poll() is None
    flow.kill()
    flow.wait()


def test_two_commands_at_once_are_refused(here):
    with here.alone(), pytest.raises(StackError, match="wait for it"), here.alone():
        pass


def test_a_name_of_a_stack_is_no_path():
    for name in ("../x", "", "a/b"):
        with pytest.raises(ValueError, match="letters, digits"):
            Stack.named(name)


def test_the_environment_points_to_this_stack_only(here, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    monkeypatch.setenv("PREFECT_API_KEY", "elsewhere")
    monkeypatch.setenv("GRIST_LAKE", "/lake")
    stack._prepare(here, {})
    environment = stack.environment(here, "ray")
    assert "RAY_ADDRESS" not in environment and "PREFECT_API_KEY" not in environment
    assert environment["GRIST_LAKE"] == "/lake" and environment["RAY_AUTH_MODE"] == "token"
    assert environment["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)
    assert here.secret("prefect") not in json.dumps(environment)


@pytest.mark.parametrize(
    ("name", "version", "level"),
    [("fastapi", "0.150.9", "ok"), ("fastapi", "0.151.0", "wrong"), ("sqlalchemy", "2.1.0b1", "wrong")],
)
def test_versions_that_break_prefect_are_found(monkeypatch, tmp_path, name, version, level):
    monkeypatch.setattr(doctor, "_installed", lambda asked: version if asked == name else "0.1")
    (finding,) = [item for item in doctor.packages(tmp_path / "none") if item.check == name]
    assert finding.level == level and version in finding.found


def test_what_differs_from_the_lock_is_named(tmp_path):
    (tmp_path / "lock").write_text("numpy==0.0.1\nno-such-package==1.0\n")
    finding = doctor.packages(tmp_path / "lock")[-1]
    assert finding.level == "warn" and "2 packages differ: no-such-package missing" in finding.found


def test_the_other_fasttext_is_found(monkeypatch):
    assert doctor.fasttext_module()[0].level == "ok"
    monkeypatch.setattr(doctor, "_installed", lambda name: "0.9")
    assert doctor.fasttext_module()[0].level == "wrong"


def broken() -> list[doctor.Finding]:
    raise AttributeError("'_FastText' object has no attribute 'get_labels'")


def test_a_check_that_breaks_is_a_finding_and_the_others_are_made(here, monkeypatch):
    names = ("python", "packages", "fasttext_module", "language_model")
    for name in names:
        monkeypatch.setattr(doctor, name, broken)
    monkeypatch.setattr(doctor, "privacy", lambda stack: broken())
    done = CliRunner().invoke(app, ["doctor", "--stack", "here", "--json"])
    findings = json.loads(done.stdout)["findings"]
    broke = {
        finding["check"] for finding in findings if "this check broke: AttributeError: '_FastText'" in finding["found"]
    }
    assert broke == {"python", "packages", "fasttext", "language model", "privacy"} and done.exit_code == 1
    assert {"lake", "disk", "ports", "ray", "prefect", "worker"} <= {finding["check"] for finding in findings}


@pytest.mark.parametrize("error", [SystemError("no"), OSError("libstdc++"), AttributeError("x"), ImportError("y")])
def test_a_module_fasttext_that_breaks_on_import_is_found(monkeypatch, error):
    class Breaks(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "fasttext":
                raise error

    monkeypatch.delitem(sys.modules, "fasttext", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Breaks(), *sys.meta_path])
    (finding,) = doctor.fasttext_module()
    assert finding.level == "wrong" and str(error) in finding.found and "pip install" in finding.fix


def test_no_prefect_and_no_ray_are_found(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name in ("prefect", "ray") else "0.1")
    wrong = [finding.check for finding in doctor.packages(tmp_path / "none") if finding.level == "wrong"]
    assert wrong == ["prefect", "ray"]


def test_a_damaged_state_is_named_and_the_doctor_goes_on(here):
    (here.folder / "stack.json").write_text("{")
    done = CliRunner().invoke(app, ["doctor", "--stack", "here", "--json"])
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "stack.json is damaged" in findings["parts"]["found"] and findings["language model"]["level"] == "ok"
    status = CliRunner().invoke(app, ["status", "--stack", "here"])
    assert status.exit_code == 1 and "stack.json is damaged" in status.stderr and "Traceback" not in status.output


def test_a_home_that_others_can_change_is_refused_and_found(here, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    other = Stack(tmp_path / "open" / "here")
    other.folder.mkdir(mode=0o700)
    with pytest.raises(StackError, match=r"everybody can replace what lies in .*open.*set GRIST_HOME"):
        stack._prepare(other, {})
    assert not (other.folder / "ray-secret").exists()
    (finding,) = doctor.privacy(other)
    assert finding.level == "wrong" and "everybody can replace" in finding.found
    stack._prepare(here, {})
    assert [finding.level for finding in doctor.privacy(here)] == ["ok"]
    here.write(ray_folder=str(tmp_path / "open"))
    (finding,) = doctor.privacy(here)
    assert finding.level == "wrong" and "has mode 0777, not 0700" in finding.found


def test_a_secret_that_others_could_have_written_is_made_anew(here):
    (here.folder / "ray-secret").write_text("known to others")
    (here.folder / "ray-secret").chmod(0o644)
    stack._prepare(here, {})
    assert here.secret("ray") != "known to others" and len(here.secret("ray")) == 64


def test_a_lake_is_asked_to_refuse(tmp_path, monkeypatch):
    from gristmill.lake.store.opening import open_store

    assert doctor.lake_findings("")[0].level == "warn"
    assert doctor.lake_findings("lake")[0].level == "wrong"
    assert doctor.lake_findings(str(tmp_path / "none"))[0].level == "warn"
    open_store(str(tmp_path / "lake"))
    assert doctor.lake_findings(str(tmp_path / "lake"))[0].level == "ok"
    (tmp_path / "lake" / "lake.json").write_text("nonsense")
    assert doctor.lake_findings(str(tmp_path / "lake"))[0].level == "wrong"


def test_a_full_disk_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5 << 20})())
    (finding,) = doctor.disk([tmp_path / "not" / "there"])
    assert finding.level == "wrong" and str(tmp_path) in finding.found


SCHEDULE = {"id": "d", "name": "nightly", "schedules": [{"active": True}]}


@pytest.mark.parametrize(
    ("deployments", "runs", "level", "says"),
    [
        ([], [], "warn", "no deployment"),
        ([{**SCHEDULE, "paused": True}], [], "warn", "no active schedule"),
        ([SCHEDULE], [], "wrong", "no run is scheduled"),
        ([SCHEDULE], [{"expected_start_time": "2020-01-01T00:00:00Z"}], "wrong", "late"),
        ([SCHEDULE], [{"expected_start_time": "2999-01-01T00:00:00Z"}], "ok", "next run 2999"),
    ],
)
def test_schedules_that_never_fire_are_found(here, monkeypatch, deployments, runs, level, says):
    monkeypatch.setattr(doctor.health, "deployments", lambda server, pool: deployments)
    monkeypatch.setattr(doctor.health, "next_runs", lambda server, ids: runs)
    (finding,) = doctor.schedules(here)
    assert finding.level == level and says in finding.found


def test_status_and_doctor_say_that_nothing_runs(here):
    status = CliRunner().invoke(app, ["status", "--stack", "here", "--json"])
    assert status.exit_code == 1
    assert [part["fault"] for part in json.loads(status.stdout)["parts"]] == ["does not run"] * 3
    answer = CliRunner().invoke(app, ["doctor", "--stack", "here", "--json"])
    assert answer.exit_code == 1
    wrong = {finding["check"] for finding in json.loads(answer.stdout)["findings"] if finding["level"] == "wrong"}
    assert {"ray", "prefect", "worker"} <= wrong
    assert CliRunner().invoke(app, ["down", "--stack", "here"]).exit_code == 0
