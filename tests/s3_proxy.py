"""A proxy in front of an S3 server, which kills its client at a request that the test chooses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

_HOP = {"connection", "expect", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill a process: at one of its requests to S3.

    Attributes:
        when: Before the request is forwarded, or after it was answered, which the process does not
            learn.
        request: A pattern for method and key, such as `PUT .*/manifest.yml`.
        number: Which of those that match, from 1.
    """

    when: Literal["before", "after"]
    request: str
    number: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.number} {self.request}"


@dataclass
class S3Proxy:
    """Forwards requests until the moment has come.

    Attributes:
        url: Its address.
        log: Method and path of each request, in order.
    """

    url: str
    log: list[str]
    _server: Any

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command that has this proxy as its S3 server."""
        env = {**os.environ, "AWS_ENDPOINT_URL_S3": self.url}
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        ) as process:
            self._server.process = process
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, moment: Moment | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.moment = moment
        self.log: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()
        self.count = 0

    def has_come(self, request: str) -> bool:
        """Note a request; return whether it is that of the moment."""
        with self.lock:
            self.log.append(request)
            if self.moment is None or not re.fullmatch(self.moment.request, request):
                return False
            self.count += 1
            return self.count == self.moment.number

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path)
        has_come = self.server.has_come(f"{self.command} {path.path}")
        moment = self.server.moment
        if has_come and moment and moment.when == "before":
            self.server.kill()
            self.close_connection = True
            return
        connection = HTTPConnection(self.server.target, timeout=120)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if has_come:
            self.server.kill()
            self.close_connection = True
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in {*_HOP, "content-length"}:
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        length = answer.getheader("Content-Length") if is_head else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base
        """Print nothing."""


@contextmanager
def s3_proxy(moment: Moment | None = None) -> Generator[S3Proxy]:
    """Run a proxy in front of the S3 server that this process uses."""
    server = _Server(os.environ["AWS_ENDPOINT_URL_S3"], moment)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield S3Proxy(f"http://127.0.0.1:{server.server_address[1]}", server.log, server)
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
