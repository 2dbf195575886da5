"""A bad network before an S3 server: answers 500, slowly, in halves or not at all, as scripted."""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np

FAULTS = ("error", "busy", "slow", "deaf", "cut", "half")
"""500 at once; 503 at once; answered `slow` seconds late; cut before anything was done; cut instead
of an answer, after it was done; cut in the middle of the answer's body, or, where it has none, as
"cut"."""
HOP = {"connection", "keep-alive", "transfer-encoding", "proxy-connection", "host"}


def seeded(seed: int, share: float, faults: tuple[str, ...] = FAULTS) -> Iterator[str]:
    """Without end: a fault for about this share of requests, "" for the others."""
    rng = np.random.default_rng(seed)
    while True:
        yield str(rng.choice(faults)) if rng.random() < share else ""


class FlakyS3(ThreadingHTTPServer):
    """Hands every request on to `upstream`, with what the script says for it.

    Attributes:
        address: to be used as the S3 endpoint.
        slow: seconds that a slow answer takes more.
        happened: how often each fault was met, "" being none.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.slow = 0.1
        self.happened: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.follow([])

    def follow(
        self, script: Iterable[str], only: Callable[[str, str], bool] = lambda method, path: True
    ) -> None:
        """From now on: a fault, or "", for each request that `only(method, path)` takes.

        After the script's end nothing goes wrong.
        """
        with self._lock:
            self._script, self._only = itertools.chain(script, itertools.repeat("")), only
            self.happened = Counter()

    def next_fault(self, method: str, path: str) -> str:
        """What befalls this request."""
        with self._lock:
            fault = next(self._script) if self._only(method, path) else ""
            self.happened[fault] += 1
            return fault

    def handle_error(self, request, client_address) -> None:
        """Connections that are cut are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        fault = self.server.next_fault(self.command, self.path)
        if fault == "deaf":
            return self._cut()
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # parse_request has told it to go on
        body = self._body()
        if fault in ("error", "busy"):
            status, code = (500, "InternalError") if fault == "error" else (503, "SlowDown")
            return self._answer(status, [], f"<Error><Code>{code}</Code></Error>".encode())
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP}
        headers |= {"Host": self.headers.get("Host", self.server.upstream)}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if fault == "slow":
            time.sleep(self.server.slow)
        if fault == "cut" or (fault == "half" and len(content) < 2):
            return self._cut()
        self._answer(response.status, response.getheaders(), content, half=fault == "half")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool = False
    ) -> None:
        self.send_response_only(status)
        kept = {"content-length", *HOP}
        told = [(key, value) for key, value in headers if key.lower() not in kept]
        lengths = [value for key, value in headers if key.lower() == "content-length"]
        # (A HEAD request is answered by the length of what is not sent.)
        length = lengths[0] if self.command == "HEAD" and lengths else str(len(content))
        for key, value in [*told, ("Content-Length", length)]:
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def flaky_s3(upstream: str) -> Iterator[FlakyS3]:
    """A proxy before the server at `upstream`, gone afterwards; it behaves until it is told to."""
    server = FlakyS3(upstream)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
