"""A server of vLLM as a child of a worker, in an environment of its own: vLLM pins its own torch, so it is no
dependency of this project but an interpreter that the config names.

It listens on a free port of this machine, is given nothing of our environment but what it needs to find its libraries
and the GPUs that the worker was assigned, and ends with the worker, however that ends (`vllm_keeper`). Flags are those
of `vllm serve` and of `python -m vllm.entrypoints.openai.api_server`, which parse the same ones.
Source: vLLM's documentation, "vllm serve" and "Environment Variables", versions 0.8 to 0.30.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from gristmill.stages.generate.engines import vllm_keeper

_SET_HERE = (
    "--model", "--tokenizer", "--host", "--port", "--uds", "--served-model-name", "--max-model-len", "--max-num-seqs",
    "--dtype", "--seed", "--generation-config", "--chat-template", "--api-key", "--ssl-keyfile", "--ssl-certfile",
    "--config",
)  # fmt: skip
"""Flags that follow from the recipe and from `run.hosts`, or that nobody could be asked by."""
_DECIDE_SAMPLES = (
    "--quantization", "-q", "--kv-cache-dtype", "--hf-overrides", "--hf-config-path", "--override-generation-config",
    "--tokenizer-mode", "--load-format", "--rope-scaling", "--rope-theta", "--enable-lora", "--lora-modules",
    "--logits-processors", "--reasoning-parser", "--enable-auto-tool-choice", "--tool-call-parser",
    "--default-chat-template-kwargs", "--chat-template-content-format", "--return-tokens-as-token-ids",
)  # fmt: skip
"""Flags that make another model of it, or other texts of what it draws."""

_KEPT = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "CC")
)
_KEPT_BEGINNINGS = (
    "LC_", "CUDA_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "VLLM_", "TORCH_", "TORCHINDUCTOR_", "TRITON_", "FLASHINFER_",
    "OMP_",
)  # fmt: skip
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSW")
_OWN = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
"""Nothing is sent out and nothing fetched; its last words are in the log when it dies."""

_VERSION = "import importlib.metadata as metadata; print(metadata.version('vllm'))"
_VERSION_S = 300.0
_PAUSE_S = 0.2
_HEALTH_S = 10.0
_CLOSE_S = 30.0
_LOG_BYTES = 4096


class BadServer(RuntimeError):
    """vLLM that cannot be used for this run, and why: the interpreter has none, or the server ended at its start."""


@dataclass(frozen=True)
class Vllm:
    """Where vLLM is, and how it is started, which decides no sample. `python`: the interpreter of an environment that
    has it, an absolute path, since workers start it; `args`: more of its flags; `start_seconds`: within which it has to
    be ready, weights loaded and graphs captured."""

    python: str = ""
    args: tuple[str, ...] = ()
    start_seconds: float = 1800.0

    def __post_init__(self) -> None:
        if self.python and not os.path.isabs(self.python):
            raise ValueError(f"python={self.python!r}: an absolute path of an interpreter, since workers start it")
        if not self.start_seconds > 0:
            raise ValueError(f"start_seconds={self.start_seconds}: above 0")
        for arg in self.args:
            _check_arg(arg)


def _check_arg(arg: str) -> None:
    """Raises ValueError for a flag that is not for `args`. Abbreviations count as what they may stand for."""
    if not arg.startswith("-"):
        return
    flag = re.split("[=.]", arg)[0].replace("_", "-")
    if any(name.startswith(flag) for name in _SET_HERE):
        raise ValueError(f"args: {arg}: it is set by recipe.engine, recipe.draws and run.hosts")
    if any(name.startswith(flag) for name in _DECIDE_SAMPLES):
        raise ValueError(
            f"args: {arg}: it would change what is drawn, and run decides no sample; args say how the model is hosted,"
            " as --tensor-parallel-size=2 does"
        )


def environment() -> dict[str, str]:
    """What a server gets of this process's environment: where libraries and GPUs are, no Python path and no secret."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name in _KEPT or name.startswith(_KEPT_BEGINNINGS)) and not _SECRET.search(name)
    }
    return kept | _OWN


def installed(python: str) -> str:
    """The version of vLLM that an interpreter has; it is not imported. Raises BadServer."""
    if not python:
        raise BadServer("python is empty: give the interpreter of an environment that has vllm")
    try:
        run = subprocess.run(
            [python, "-c", _VERSION],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), cwd="/", timeout=_VERSION_S,
        )  # fmt: skip
    except OSError as error:
        raise BadServer(f"python={python!r}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise BadServer(f"python={python!r}: no answer in {_VERSION_S:g} s") from None
    if run.returncode:
        last = (run.stderr.strip() or f"exit code {run.returncode}").splitlines()[-1]
        raise BadServer(f"python={python!r} has no vllm ({last}): install it there: {python} -m pip install vllm")
    return run.stdout.strip()


class Server:
    """A server that is being started with these flags, beside host and port; its log lies in `folder`, which outlives
    it. `url`: up to and with `/v1`."""

    def __init__(self, settings: Vllm, flags: Sequence[str], folder: Path) -> None:
        self.settings, self.log = settings, folder / "vllm.log"
        port = _free_port()
        self._health = f"http://127.0.0.1:{port}/health"
        self.url = f"http://127.0.0.1:{port}/v1"
        command = [settings.python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--port", str(port), *flags, *settings.args]
        with self.log.open("wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", vllm_keeper.__file__, *command],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                env=environment(), cwd=folder, start_new_session=True,
            )  # fmt: skip
        self._ended = weakref.finalize(self, _end, self._keeper)

    def wait(self) -> None:
        """Until it answers. Raises BadServer, with the end of its log, if it ends before, or takes too long."""
        deadline = time.monotonic() + self.settings.start_seconds
        with httpx.Client(trust_env=False, timeout=_HEALTH_S) as client:
            while not self._answers(client):
                if not self.alive:
                    raise BadServer(
                        f"vLLM ended at its start with exit code {self._keeper.returncode}{self.last_words()}"
                    )
                if time.monotonic() > deadline:
                    seconds = self.settings.start_seconds
                    raise BadServer(f"vLLM is not ready after start_seconds={seconds:g}{self.last_words()}")
                time.sleep(_PAUSE_S)

    def _answers(self, client: httpx.Client) -> bool:
        try:
            return client.get(self._health).status_code == httpx.codes.OK
        except httpx.HTTPError:  # it does not listen yet, or does not listen any more
            return False

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._keeper.poll() is None

    def last_words(self) -> str:
        """The end of its log, to stand behind a sentence."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
            text = log.read().decode(errors="replace").strip()
        return f". The end of its log:\n{text}" if text else ", and wrote no log"

    def close(self) -> None:
        """Ends it, and all that it started."""
        self._ended()


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """Closes the keeper's stdin, upon which it ends the server; one that does not is killed, and the server with it."""
    assert keeper.stdin is not None
    keeper.stdin.close()
    try:
        keeper.wait(_CLOSE_S)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
