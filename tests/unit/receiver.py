"""A small HTTP server that answers as told and keeps what it was sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """The requests to a server, and its answers.

    Attributes:
        url: Its address.
        codes: The status of each answer in turn; 200 after the last one.
        kind: The content type of the answers.
        silent: Whether it does not answer at all for some seconds.
        requests: Method, path, headers and body of each request.
    """

    url: str = ""
    codes: list[int] = field(default_factory=list[int])
    kind: str = "text/plain"
    silent: float = 0.0
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list[Any])


@contextmanager
def receiving() -> Generator[Receiver]:
    """Run a server on a free port of this host."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            receiver.requests.append((self.command, self.path, dict(self.headers), body))
            time.sleep(receiver.silent)
            self.send_response(receiver.codes.pop(0) if receiver.codes else 200)
            self.send_header("Content-Type", receiver.kind)
            self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
