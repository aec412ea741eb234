"""Ray on a machine so busy that its node needs longer than the 30 s which Ray gives it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SLOW_START = """
import sys, time
from gristmill.stages.run.cluster import _close_to_others, connect
_close_to_others()  # Ray reads this when it is imported
import ray, ray._private.node, ray._private.services

class Clock:
    "Time as Ray's node sees it: every look at it is a minute later."
    now = 0.0
    sleep, time = staticmethod(time.sleep), staticmethod(time.time)
    @classmethod
    def monotonic(cls):
        cls.now += 60
        return cls.now

look_up, asked = ray._private.services.get_node, []
def not_yet(*args, **options):
    asked.append(1)
    if len(asked) <= 3:
        raise RuntimeError("the raylet has not registered yet")
    return look_up(*args, **options)
ray._private.services.get_node = not_yet
ray._private.node.time = Clock
"""
CONNECT = """
connect(1)
ray._private.node.time = time
print(ray.get(ray.remote(lambda: 6 * 7).remote()))
assert ray._private.services.get_node is not_yet
"""
NO_RAYLET = """
from contextlib import ExitStack
from gristmill.stages.run import ray_start
with ExitStack() as ports, ray_start.patient(ports, limit=1e9):
    try:
        ray._private.services.get_node("127.0.0.1:1", "node")
    except ray_start.NotStarted as error:
        print(error)
"""
AGENTS = """
import sys
from gristmill.stages.run.cluster import _close_to_others, connect
_close_to_others()
import ray, ray._private.services as services

command = services._build_python_executable_command_memory_profileable
def held(component, *args, **options):
    "An agent that is not given the CPU. The dashboard's server is none: Ray would wait a minute for it."
    if "agent" not in component:
        return command(component, *args, **options)
    return [sys.executable, "-c", "import signal; signal.pause()"]
"""
NO_AGENT_YET = """
services._build_python_executable_command_memory_profileable = held
connect(1)
print(ray.get(ray.remote(lambda: 6 * 7).remote()))
"""
PORTS_OF_AGENTS = """
import socket
from waiting import until
def answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
connect(1)
node = ray._private.worker._global_node
ports = [node.metrics_agent_port, node.metrics_export_port]
ports += [node.dashboard_agent_listen_port, node.runtime_env_agent_port]
assert len(set(ports)) == 4
until(lambda: all(map(answers, ports)), "the agents")
print("all answer")
"""
NO_START = """
start_process = services.start_ray_process
def start_ray_process(command, process_type, **options):
    "A raylet that has written into its log and ends at once."
    if process_type == "raylet":
        [error] = [part.split("=", 1)[1] for part in command if part.startswith("--stderr_filepath=")]
        open(error, "w").write("no room for a node")
        command = [sys.executable, "-c", ""]
    return start_process(command, process_type, **options)
services.start_ray_process = start_ray_process
try:
    connect(1)
except ConnectionError as error:
    print(error)
"""


def run(program: str, **variables: str) -> str:
    environment = os.environ | {"TMPDIR": "/tmp"} | variables
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_node_that_registers_late_is_waited_for():
    assert run(SLOW_START + CONNECT) == "42"


def test_ray_alone_gives_up_on_it():
    """What `patient` is for: if this fails, Ray has become patient itself."""
    impatient = (
        "import contextlib\nfrom gristmill.stages.run import cluster\ncluster.patient = contextlib.nullcontext\n"
    )
    with pytest.raises(AssertionError, match="timed out during startup"):
        run(impatient + SLOW_START + CONNECT)


def test_nobody_waits_for_a_raylet_that_is_not_there():
    assert "its raylet has ended" in run(SLOW_START + NO_RAYLET)


def test_a_node_does_not_wait_for_its_agents():
    """Ray alone ends the raylet after 15 s or 30 s without them."""
    assert run(AGENTS + NO_AGENT_YET) == "42"


def test_its_agents_take_the_ports_that_were_held_for_them():
    assert run(AGENTS + PORTS_OF_AGENTS) == "all answer"


def test_a_raylet_that_ends_is_reported_with_the_end_of_its_log():
    answer = run(AGENTS + NO_START, RAY_raylet_start_wait_time_s="1")  # of Ray's own look for it; it has 30
    assert answer.endswith("its raylet has ended. Its logs end so:\nno room for a node")


def test_a_program_that_imported_ray_before_has_a_private_ray_too():
    """Ray reads where to listen, and how to show its token, when it is imported."""
    program = "import ray.util.state\nfrom gristmill.stages.run.cluster import connect\nconnect(1)\nimport ray\n"
    program += "print(ray.get(ray.remote(lambda: 6 * 7).remote()), ray.util.get_node_ip_address())"
    unset = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.stdout == "42 127.0.0.1\n", run.stderr


def test_ray_outlives_the_thread_that_connected_to_it():
    """The kernel kills what Ray started when the thread that started it ends, not when the program does."""
    program = "import threading\nfrom gristmill.stages.run.cluster import connect\n"
    program += "thread = threading.Thread(target=connect, args=(1,))\nthread.start()\nthread.join()\n"
    program += "import ray\nprint(ray.get(ray.remote(lambda: 6 * 7).remote()))"
    assert run(program) == "42"
