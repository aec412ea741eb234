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
from gristmill.stages.run import ray_start
with ray_start.patient(limit=1e9):
    try:
        ray._private.services.get_node("127.0.0.1:1", "node")
    except RuntimeError as error:
        print(error)
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"TMPDIR": "/tmp"}
    )
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
    assert run(SLOW_START + NO_RAYLET) == "the raylet has not registered yet"
