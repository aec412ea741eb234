"""A sandbox for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.synth.sandbox.isolation import Limits, NotIsolated
from gristmill.synth.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """With small limits; it leaves no mount behind. A machine that cannot isolate skips."""
    limits = Limits(cpu_s=1, wall_s=120, memory=256 << 20, processes=4, scratch=1 << 20)
    sandbox = Sandbox(limits)
    try:
        sandbox.isolation  # noqa: B018
    except NotIsolated as error:
        pytest.skip(str(error))
    mounts = Path("/proc/mounts").read_text()
    yield sandbox
    sandbox.close()
    assert Path("/proc/mounts").read_text() == mounts
