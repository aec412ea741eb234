"""What other users of a machine meet: a second uid, and the addresses that processes listen on."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import psutil
import pytest
from waiting import PATIENCE

STRANGER = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away or become another user")


def as_a_stranger(attempts: list[Callable[[], object]]) -> list[str]:
    """What each attempt comes to for another user: "done", or the name of its error. Imports nothing there."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(STRANGER)
        os.setuid(STRANGER)
        lines = []
        for attempt in attempts:
            try:
                attempt()
                lines.append("done")
            except OSError as error:
                lines.append(type(error).__name__)
        os.write(write, "\n".join(lines).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as answers:
        return answers.read().split("\n")


def listening(processes: list[psutil.Process]) -> list[str]:
    """Addresses on which these processes listen."""
    return [c.laddr.ip for process in processes for c in process.net_connections() if c.status == psutil.CONN_LISTEN]


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    return address.removeprefix("::ffff:").startswith("127.") or address == "::1"


def ask_without_token(port: int) -> None:
    """GET of the jobs. Raises PermissionError for 401."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET /api/jobs/ HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = connection.recv(100)
    if b" 401 " in answer.split(b"\r\n")[0]:
        raise PermissionError(answer)
