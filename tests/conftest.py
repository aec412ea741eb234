"""Fixtures every test file shares: the real data if it is here, a local lake, a lake on a real S3 store."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
from _pytest import runner
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import junkdrawer
from s3_server import S3Server, run_seaweedfs

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.stages.run.cluster import LOOPBACK
from gristmill.stages.run.ray_start import LIMITS

# An example that takes long says nothing about the code: the machine may be busy.
settings.register_profile("gristmill", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gristmill")

LONGEST = (
    *("test_flows", "test_benchmarks", "test_kills", "test_cluster", "test_soak", "test_ray_job"),
    *("test_ray_train", "test_kickoff_s3", "test_careful", "test_benchmarks_gpu", "test_wheel", "test_ray_start"),
    *("test_readme_commands", "test_golden", "test_runner", "test_speech_page", "test_contributing", "test_readme"),
    *("test_reasoning_lake", "test_reasoning_pages", "test_model_pages", "test_extending"),
)
"""Files that wait for servers, schedules and kills, or compute for long: they come first, so that the others have
enough to do beside them. `make test` deals whole files to its workers, and none of these may be left for the end."""
GIB_A_WORKER = 6

# Ray's workers unpickle toy stages by the module that defines them: a helper, or a test of the package `tests`.
PLACES = (Path(__file__).parent, Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, PLACES), *filter(None, [os.environ.get("PYTHONPATH")])])

# Processes that tests start find what others compiled, whatever this shell says: hundreds of them import the package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A process a core runs tests, and many fork: a child must not wait for a pool of threads that stayed behind.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _one_thread_of_torch() -> None:
    if set_num_threads := getattr(sys.modules.get("torch"), "set_num_threads", None):
        set_num_threads(1)


os.register_at_fork(after_in_child=_one_thread_of_torch)  # some test may have asked for more
# Hypothesis times garbage collection in a callback, from where no exception gets out: a Ctrl-C that arrives there would
# be lost, and the test of what it ends would wait for ever.
junkdrawer._gc_initialized = True
# The process that records are read in is kept as long as the environment it was started in, and pytest puts the name of
# each test into that: every test that reads records would start one.
runner._update_current_test_var = lambda item, when: None
os.environ |= LOOPBACK | LIMITS  # a test may import Ray before a runner does, and Ray reads this when it is imported


def pytest_make_parametrize_id(val: object) -> str | None:
    """A set by its sorted members: in its own order, two processes would give one test two names."""
    if isinstance(val, set | frozenset):
        return "+".join(sorted(map(str, val))) or "none"
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, where there is memory for it: the longest files wait for a part of their time."""
    cores = len(os.sched_getaffinity(0))
    return cores + (psutil.virtual_memory().total >= (cores + 1) * GIB_A_WORKER << 30)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they came."""
    rank = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays, millions of objects: to look through them for garbage takes a second each
    time, and a forked process would copy them. So only what tests make is looked through."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real samples beside the checkout; skips where it is not."""
    folder = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real samples are not kept in it")
    return folder.resolve()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One SeaweedFS for the whole run, started by the first test that asks for it."""
    with run_seaweedfs(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def s3_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The AWS environment of this test, and of what it starts, is the test store's and nothing else."""
    use_s3(s3, monkeypatch)
    return s3


@pytest.fixture
def s3_lake(s3_environment: S3Server) -> str:
    """The address of an empty place of this test's own: "s3://bucket/prefix"."""
    return f"s3://{s3_environment.bucket}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["local", "s3"])
def lake_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty lake, once in a folder and once on S3."""
    return str(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3_lake")


def use_s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also used by tests that bring a faulty store of their own."""
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty lake in a folder."""
    return open_store(str(tmp_path / "lake"))


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test pulls the plug of the machine: what a killed process wrote is there, flushed or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda fd: None)
        yield


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated crawl, small; shared by all tests, which must not write to it."""
    from gristmill.synth.sample import write_sample

    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, pages=150)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread and from one seed: bits and draws are compared, and machines have other numbers of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Any]:
    """The toy model behind `grist serve`, one for a file."""
    from serving import serving

    with serving() as server:
        yield server


@pytest.fixture
def server(shared_server: Any) -> Iterator[Any]:
    """`shared_server`, left as it was found."""
    yield shared_server
    shared_server.engine.script, shared_server.engine.delay = (), 0.0
    shared_server.engine.gate.set()


@pytest.fixture
def counted_lines() -> Callable[[str, Callable[[], object]], int]:
    """`counted_lines("stages.text.html", call)`: how many lines of a module a call runs. No clock takes part."""

    def count(module: str, call: Callable[[], object]) -> int:
        lines = 0
        file = sys.modules[module].__file__

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal lines
            if frame.f_code.co_filename != file:
                return None
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
        return lines

    return count


@pytest.fixture(scope="session")
def written_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text model and two adapters, as transformers and peft write them (tests/hf.py); not to be changed."""
    import hf  # transformers takes seconds to import, and few tests need it

    return hf.save_all("text", tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def written_multimodal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `written_text`, of a model that sees and hears."""
    import hf

    return hf.save_all("multimodal", tmp_path_factory.mktemp("multimodal"))


@pytest.fixture
def text_folder(written_text: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return shutil.copytree(written_text, tmp_path / "text")


@pytest.fixture
def hub_folder(written_multimodal: Path, tmp_path: Path) -> Path:
    """The multimodal one in the form that the hub has Phi-4-multimodal in, to change."""
    import hf_hub

    return hf_hub.as_hub(written_multimodal, tmp_path / "hub", **hf_hub.HUB_CONSTANTS)
