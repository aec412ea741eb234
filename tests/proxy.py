"""A TCP proxy before a real store that swallows answers: the request arrives, the client never hears of it.

Bytes pass unchanged (also the Host header), so AWS signatures stay valid.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from s3_server import S3Server


class SwallowingProxy(socketserver.ThreadingTCPServer):
    """While `swallow` is positive, an answer counts it down and the client is cut off instead.

    While `down`, every connection is cut at once; `down_after` takes it down when so many requests came through.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.upstream = upstream
        self.lock = threading.Lock()
        self.swallow = 0
        self.swallowed: list[bytes] = []
        self.down = False
        self.down_after: int | None = None

    def admits(self) -> bool:
        """Whether a request goes through."""
        with self.lock:
            if self.down_after is not None:
                self.down_after -= 1
                if self.down_after <= 0:
                    self.down, self.down_after = True, None
            return not self.down


class Relay(socketserver.BaseRequestHandler):
    """One connection, passed on in both directions."""

    server: SwallowingProxy
    request: socket.socket

    def handle(self) -> None:
        """Passes on what the client sends, as long as the proxy is up."""
        if self.server.down:
            return
        with socket.create_connection(self.server.upstream) as upstream:
            back = threading.Thread(target=self.answers, args=(upstream,), daemon=True)
            back.start()
            while data := receive(self.request):
                if not self.server.admits():
                    break
                upstream.sendall(data)
            shut(upstream)
            back.join()

    def answers(self, upstream: socket.socket) -> None:
        """Passes on what the server answers, or swallows it."""
        while data := receive(upstream):
            with self.server.lock:
                # "100 Continue" is no answer yet: the body is still to be sent.
                swallow = self.server.swallow > 0 and not data.startswith(b"HTTP/1.1 100")
                if swallow:
                    self.server.swallow -= 1
                    self.server.swallowed.append(data.split(b"\r\n")[0])
            if swallow:
                break
            self.request.sendall(data)
        shut(self.request)


def receive(connection: socket.socket) -> bytes:
    """Bytes, or none when the other side is gone, however it went."""
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def shut(connection: socket.socket) -> None:
    """Ends a connection, if it is still there."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed by the other thread already


@contextmanager
def run_proxy(server: S3Server) -> Iterator[tuple[SwallowingProxy, S3Server]]:
    """The proxy, and the same store as seen through it."""
    address = urlsplit(server.endpoint)
    assert address.hostname and address.port
    with SwallowingProxy((address.hostname, address.port)) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy, S3Server(f"http://127.0.0.1:{proxy.server_address[1]}", server.bucket)
        finally:
            proxy.shutdown()
            thread.join()
