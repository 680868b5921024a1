"""Files arrive by HTTP as they were sent; refusals say what to do and show no secret."""

from __future__ import annotations

import gzip
import http.server
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from scythe.errors import FetchError
from scythe.storage.fetch import begin_leaf, cached_path, end_leaf, fetch_uri
from scythe.storage.uris import hide_secrets, shown_uri

CSV = b"a,b\n1,2\n" * 100
PACKED = gzip.compress(CSV)
SECRET = "X-Amz-Signature=d41d8cd98f00b204e9800998ecf8427e&token=tops3cret"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers what the path says: `/<status>,<status>…?<anything>`, and counts."""

    requests: list[str]
    headers_of: dict[str, dict[str, str]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(self.path)
        statuses = path.strip("/").split("/")[0].split(",")
        number = sum(one.partition("?")[0] == path for one in self.requests) - 1
        status = statuses[min(number, len(statuses) - 1)]
        if not status.isdigit() or status == "200":
            self._send(200, PACKED if path.endswith(".gz") else CSV, path)
        else:
            self._send(int(status), b"no", path)

    def _send(self, status: int, body: bytes, path: str) -> None:
        self.send_response(status)
        accepted = self.headers.get("accept-encoding", "")
        if path.endswith(".gz") or ("gzip" in accepted and status == 200):
            body = body if path.endswith(".gz") else gzip.compress(body)
            self.send_header("content-encoding", "gzip")
        for name, value in self.headers_of.get(path, {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:  # pyright: ignore
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.requests, Handler.headers_of = [], {}
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_packed_file_stays_packed(server: str, tmp_path: Path) -> None:
    assert fetch_uri(f"{server}/data.csv.gz", tmp_path / "a").read_bytes() == PACKED


def test_a_server_that_would_pack_a_file_does_not(server: str, tmp_path: Path) -> None:
    assert fetch_uri(f"{server}/data.csv", tmp_path / "a").read_bytes() == CSV


@pytest.mark.parametrize("refusals", ["429", "500", "503,502"])
def test_what_passes_is_tried_again(server: str, refusals: str, tmp_path: Path) -> None:
    assert fetch_uri(f"{server}/{refusals},200", tmp_path / "a").read_bytes() == CSV
    assert len(Handler.requests) == 1 + len(refusals.split(","))


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_server_says_how_long_to_wait(server: str, form: str, tmp_path: Path) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    Handler.headers_of["/429,200"] = {"retry-after": "2" if form == "seconds" else when}
    started = time.monotonic()
    fetch_uri(f"{server}/429,200", tmp_path / "a")
    assert 1.5 < time.monotonic() - started < 20


def test_a_wait_that_is_longer_than_the_leaf_may_run_ends_at_once(
    server: str, tmp_path: Path
) -> None:
    Handler.headers_of["/503"] = {"retry-after": "3600"}
    started = time.monotonic()
    begin_leaf(time.monotonic() + 60)
    try:
        with pytest.raises(FetchError, match=r"503 .* the leaf's execution_timeout is over before"):
            fetch_uri(f"{server}/503", tmp_path / "a")
    finally:
        end_leaf()
    assert time.monotonic() - started < 10
    with pytest.raises(FetchError, match="SCYTHE_FETCH_TIMEOUT is over before"):
        fetch_uri(f"{server}/503", tmp_path / "a")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "It asks for credentials"),
        (403, "check whether the URL's signature has expired"),
        (404, "Check the address: nothing is there"),
        (410, "what was there is gone"),
        (400, "Check the address"),
    ],
)
def test_each_refusal_has_its_own_words_and_no_secret(
    server: str,
    status: int,
    words: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    host = server.removeprefix("http://")
    with pytest.raises(FetchError, match=f"the server answered {status} ") as error:
        fetch_uri(f"http://me:passw0rd@{host}/{status}/x.csv?id=3&{SECRET}", tmp_path / "a")
    message = str(error.value)
    assert words in message
    assert "id=3" in message
    assert error.value.__cause__ is None
    assert "HTTP Request: GET" in caplog.text
    for secret in ("d41d8cd98f00b204", "tops3cret", "passw0rd"):
        assert secret not in message + caplog.text
    assert len(Handler.requests) == 1


def test_a_file_that_only_the_query_names(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    paths = [fetch_uri(uri, cached_path(uri)) for uri in (f"{server}/?id=3", f"{server}/?id=4")]
    assert [path.read_bytes() for path in paths] == [CSV, CSV]
    assert paths[0] != paths[1]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://h/a.csv?id=3", "https://h/a.csv?id=3"),
        ("https://u:p@h:1/a?sig=x&b=1#f", "https://***@h:1/a?sig=***&b=1"),
        (f"https://h/a?{SECRET}", "https://h/a?X-Amz-Signature=***&token=***"),
        ("https://h/a?x=" + "a" * 40, "https://h/a?x=***"),
        ("https://h/a?" + "a" * 40, "https://h/a?***"),
        ("s3://b/a?b=c@d", "s3://b/a?b=c@d"),
        ("/home/me@host/a?b", "/home/me@host/a?b"),
    ],
)
def test_uris_as_they_are_shown(uri: str, shown: str) -> None:
    assert shown_uri(uri) == shown
    assert hide_secrets(f"see '{uri}'.") == f"see '{shown}'."
