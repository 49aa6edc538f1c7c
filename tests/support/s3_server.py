"""An S3 server on this machine (moto), and a proxy in front of it that fails as object storage fails."""

from __future__ import annotations

import http.client
import http.server
import itertools
import logging
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

SECRET = "sEcReT0000fwdataNEVERshown"
"""The secret key that tests use."""

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BROKEN = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


@dataclass
class Request:
    """A request that reached the proxy."""

    number: int
    method: str
    path: str


@dataclass
class S3Server:
    """Its endpoint, and what happens to requests.

    fault names what to do to a request: "busy" (503), "broken" (500), "short" (half of the body, then the connection
    ends), "empty" (none of it), "lost" (it is done, the connection ends without an answer), "hang", "unconditional"
    (conditions are dropped), "refused" (`answer`), "kill" (calls `on_kill`), None.
    """

    endpoint: str
    fault: Callable[[Request], str | None] = lambda request: None
    on_kill: Callable[[], None] = lambda: None
    seen: list[Request] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    names: Iterator[int] = field(default_factory=itertools.count)
    answer: tuple[int, bytes] = (403, b"")

    def bucket(self) -> str:
        """A new bucket, as a URL."""
        name = f"bucket-{next(self.names)}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")).close()
        return f"s3://{name}"

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer every request with an error of this kind."""
        self.answer = (status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())
        self.fault = lambda request: "refused"

    def counts(self) -> Counter[str]:
        """Requests by method since `seen` was cleared."""
        return Counter(request.method for request in self.seen)


def first_try(kind: str, *methods: str) -> Callable[[Request], str | None]:
    """Every object's first request of these methods fails."""
    tried: set[tuple[str, str]] = set()

    def fault(request: Request) -> str | None:
        key = (request.method, request.path)
        if request.method not in methods or key in tried:
            return None
        tried.add(key)
        return kind

    return fault


def _proxy(server: S3Server, host: str, port: int) -> type[http.server.BaseHTTPRequestHandler]:
    numbers = itertools.count()

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(next(numbers), self.command, self.path)
            server.seen.append(request)
            fault = server.fault(request)
            if fault == "kill":
                server.on_kill()
            elif fault == "hang":
                server.release.wait(20)
                self.close_connection = True
            elif fault in ("busy", "broken"):
                self.answer(503 if fault == "busy" else 500, {}, BUSY if fault == "busy" else BROKEN)
            elif fault == "lost":
                self.forward(body, None, silent=True)
            elif fault == "refused":
                self.answer(server.answer[0], {}, server.answer[1])
            else:
                self.forward(body, fault)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one

        def forward(self, body: bytes, fault: str | None, silent: bool = False) -> None:
            dropped = {"if-none-match", "if-match"} if fault == "unconditional" else set()
            headers = {key: value for key, value in self.headers.items() if key.lower() not in dropped}
            inner = http.client.HTTPConnection(host, port, timeout=120)
            try:
                inner.request(self.command, self.path, body, headers)
                answer = inner.getresponse()
                data, kept = answer.read(), dict(answer.getheaders())
            finally:
                inner.close()
            if silent:
                self.close_connection = True
                return
            self.answer(answer.status, kept, data, {"short": len(data) // 2, "empty": 0}.get(fault or ""))

        def answer(self, status: int, headers: dict[str, str], data: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            left_out = {"content-length", "transfer-encoding", "connection", "server", "date"}
            for key, value in headers.items():
                if key.lower() not in left_out:
                    self.send_header(key, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Proxy


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


@pytest.fixture(scope="session")
def s3_running() -> Iterator[S3Server]:
    """moto behind the proxy, started once."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    server = S3Server("")
    proxy = _Server(("127.0.0.1", 0), _proxy(server, host, port))
    server.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    proxy.shutdown()
    proxy.server_close()
    moto.stop()


@pytest.fixture
def s3(s3_running: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server without faults, named in the environment."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_running.endpoint)
    s3_running.release.clear()
    s3_running.seen.clear()
    yield s3_running
    s3_running.fault, s3_running.answer = lambda request: None, (403, b"")
    s3_running.release.set()


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Return when the condition holds; an assertion fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
