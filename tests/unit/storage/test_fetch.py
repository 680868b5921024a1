"""Downloads land whole or not at all, within limits, and once for many processes."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scythe.errors import FetchError
from scythe.storage.fetch import cached_path, fetch_uri
from tests.acceptance.running import wait_until

BODY = bytes(range(256)) * 4096  # 1 MiB


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves what the path says, and counts."""

    counts: dict[str, int]

    def do_GET(self) -> None:
        self.counts[self.path] = self.counts.get(self.path, 0) + 1
        action = getattr(
            self, f"_{self.path.split('?')[0].strip('/').split('/')[0]}", self._missing
        )
        action()

    def _file(self) -> None:
        self._start(len(BODY))
        self.wfile.write(BODY)

    def _unsized(self) -> None:
        self._start(None)
        self.wfile.write(BODY)

    def _short(self) -> None:
        self._start(len(BODY))
        self.wfile.write(BODY[:1000])

    def _slow(self) -> None:
        self._start(None)
        for _ in range(200):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def _stuck(self) -> None:
        time.sleep(5)

    def _once(self) -> None:
        time.sleep(0.3)  # all others have asked by then
        self._file()

    def _redirect(self) -> None:
        self.send_response(302)
        self.send_header("location", "/file/x")
        self.end_headers()

    def _loop(self) -> None:
        self.send_response(302)
        self.send_header("location", "/loop")
        self.end_headers()

    def _broken(self) -> None:
        self.send_error(500, "Out of order")

    def _missing(self) -> None:
        self.send_error(404)

    def _start(self, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("content-length", str(length))
        self.end_headers()

    def log_message(self, *args: object) -> None:  # pyright: ignore
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that went away are part of these tests."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    Handler.counts = {}
    serving = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    thread.join()
    serving.server_close()


def nothing_left(folder: Path) -> bool:
    return not folder.exists() or not any(folder.rglob("*"))


@pytest.mark.parametrize("path", ["file/a.bin", "unsized/a", "redirect/x", "file/a?b=c#d"])
def test_a_file_arrives_whole(server: str, path: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.bin"
    assert fetch_uri(f"{server}/{path}", target) == target
    assert target.read_bytes() == BODY
    assert os.listdir(target.parent) == ["a.bin"]  # noqa: PTH208 - no part, no lock


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing", "the server answered 404 Not Found. Check the address"),
        ("broken", "the server answered 500 Out of order"),
        ("short", "RemoteProtocolError"),
        ("loop", "TooManyRedirects"),
    ],
)
def test_what_does_not_arrive_leaves_nothing(
    server: str, path: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match=reason) as error:
        fetch_uri(f"{server}/{path}", tmp_path / "d" / "a")
    assert f"{server}/{path}" in str(error.value)
    assert nothing_left(tmp_path / "d")


@pytest.mark.parametrize("path", ["slow", "stuck"])
def test_a_slow_server_meets_the_deadline(
    server: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_FETCH_TIMEOUT", "500ms")
    started = time.monotonic()
    with pytest.raises(FetchError, match=f"Cannot fetch {server}/{path}"):
        fetch_uri(f"{server}/{path}", tmp_path / "d" / "a")
    assert time.monotonic() - started < 3
    assert nothing_left(tmp_path / "d")


@pytest.mark.parametrize("path", ["file/a", "unsized/a"])
def test_a_file_above_the_limit(
    server: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_FETCH_MAX_BYTES", str(len(BODY) - 1))
    with pytest.raises(FetchError, match="more than SCYTHE_FETCH_MAX_BYTES=1048575"):
        fetch_uri(f"{server}/{path}", tmp_path / "d" / "a")
    assert nothing_left(tmp_path / "d")
    monkeypatch.setenv("SCYTHE_FETCH_MAX_BYTES", str(len(BODY)))
    assert fetch_uri(f"{server}/{path}", tmp_path / "d" / "a").stat().st_size == len(BODY)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"ConnectError.*check address and network"):
        fetch_uri("http://127.0.0.1:1/x", tmp_path / "a")


def test_the_cache_is_used_or_not(server: str, tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    assert fetch_uri(f"{server}/file/cache", target).read_text() == "old"
    assert "/file/cache" not in Handler.counts
    assert fetch_uri(f"{server}/file/cache", target, use_cache=False).read_bytes() == BODY
    assert fetch_uri(f"{server}/file/cache", target, use_cache=False).read_bytes() == BODY
    assert Handler.counts["/file/cache"] == 2


def test_a_failed_fetch_keeps_the_old_copy(server: str, tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(FetchError):
        fetch_uri(f"{server}/short", target, use_cache=False)
    assert target.read_text() == "old"


def test_fetched_files_are_not_for_writing(server: str, tmp_path: Path) -> None:
    assert fetch_uri(f"{server}/file/ro", tmp_path / "a").stat().st_mode & 0o222 == 0


def test_files_of_this_machine(tmp_path: Path) -> None:
    source = tmp_path / "mit leer%zeichen#.txt"
    source.write_text("here")
    assert fetch_uri(source.as_uri(), tmp_path / "copy").read_text() == "here"
    with pytest.raises(FetchError, match="there is no such file on this machine"):
        fetch_uri((tmp_path / "none").as_uri(), tmp_path / "b")
    with pytest.raises(FetchError, match="there is no such file"):
        fetch_uri(tmp_path.as_uri(), tmp_path / "b")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("ftp://example.org/x", "URI:SCHEME:ftp"),
        ("s3://bucket", "S3URI:NO_PATH"),
        ("s3:///key", "S3URI:NO_PATH"),
        ("just/a/path", "URI:SCHEME:"),
        ("http://", "UnsupportedProtocol|InvalidURL|check address"),
    ],
)
def test_uris_that_cannot_be_fetched(uri: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=reason):
        fetch_uri(uri, tmp_path / "d" / "a")
    assert nothing_left(tmp_path / "d")


def test_a_target_that_cannot_be_written(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FetchError, match="check the path and the free disk space"):
        fetch_uri(f"{server}/file/a", tmp_path / "file" / "a")


def test_a_full_disk(server: str, tmp_path: Path) -> None:
    # The limit of a file's size gives the same error in the same place as a full disk.
    code = f"""
        import resource, signal
        from pathlib import Path
        from scythe.errors import FetchError
        from scythe.storage.fetch import fetch_uri
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            fetch_uri({f"{server}/unsized/full"!r}, Path({str(tmp_path / "d" / "a")!r}))
        except FetchError as error:
            print(error)
    """
    done = run_python(code)
    assert "File too large" in done
    assert "check the path and the free disk space" in done
    assert nothing_left(tmp_path / "d")


def run_python(code: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_many_processes_fetch_one_file_once(server: str, tmp_path: Path) -> None:
    target = tmp_path / "shared" / "a.bin"
    code = f"""
        import os
        from pathlib import Path
        import httpx
        from scythe.storage.fetch import fetch_uri
        children = []
        for _ in range(12):
            pid = os.fork()
            if pid == 0:
                path = fetch_uri({f"{server}/once/a.bin"!r}, Path({str(target)!r}))
                os._exit(0 if path.stat().st_size == {len(BODY)} else 1)
            children.append(pid)
        print([os.waitpid(pid, 0)[1] for pid in children])
    """
    assert run_python(code).split() == str([0] * 12).split()
    assert Handler.counts["/once/a.bin"] <= 2
    assert target.read_bytes() == BODY
    assert os.listdir(target.parent) == ["a.bin"]  # noqa: PTH208


def test_a_process_that_dies_while_it_fetches_blocks_nobody(server: str, tmp_path: Path) -> None:
    target = tmp_path / "d" / "a"
    code = f"""
        from pathlib import Path
        from scythe.storage.fetch import fetch_uri
        fetch_uri({f"{server}/stuck/{tmp_path.name}"!r}, Path({str(target)!r}))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    deadline = time.monotonic() + 20
    while f"/stuck/{tmp_path.name}" not in Handler.counts and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert fetch_uri(f"{server}/file/after", target).read_bytes() == BODY


NAMES = [
    ("http://h/a/b.epw", "b.epw"),
    ("http://h/a/b.epw?version=1#top", "b.epw"),
    ("http://h/%C3%BC%20x.csv", "ü x.csv"),
    ("s3://bucket/deep/a%23b", "a#b"),
    ("s3://bucket/a#b?c", "a#b?c"),
    ("http://h/folder/", "folder"),
    ("http://h/a%2Fb", "b"),
    ("http://h/a%00b", "ab"),
]


@pytest.mark.parametrize(("uri", "name"), NAMES)
def test_cached_names(uri: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    path = cached_path(uri, "run")
    assert path.name == name
    assert path.is_relative_to(tmp_path / "files")
    assert cached_path(uri, "run") == path
    assert cached_path(uri, "other run") != path


@pytest.mark.parametrize(
    "uri",
    [
        *[
            "http://h",
            "http://h/",
            "http://h/..",
            "http://h/a/%2e%2e",
            "http://h/%2e",
            "s3://bucket",
        ],
        *["http://h/..%00", "http://h/%00", "http://h/a%2F..", "s3://bucket/..", "s3://b/%00..%00"],
    ],
)
def test_uris_without_a_file_name(uri: str) -> None:
    with pytest.raises(FetchError, match="URI:NO_PATH"):
        cached_path(uri)


@pytest.mark.parametrize("scope", ["../../etc", "/absolute", "a/../../b", "x" * 5000, "\x00"])
def test_no_scope_leads_out_of_the_cache(
    scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    for uri in ("http://h/../../x", "s3://b/../../x", "file:///../../x"):
        path = Path(os.path.normpath(cached_path(uri, scope)))
        assert path.is_relative_to(tmp_path / "files")
        assert len(path.relative_to(tmp_path / "files").parts) == 2


def test_long_names_fit_a_file_system(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    for name in ("x" * 300, "%E4%B8%AD" * 200, "%F0%9F%98%80" * 63):
        uri = f"{server}/file/{name}.epw"
        path = fetch_uri(uri, cached_path(uri))
        assert path.suffix == ".epw"
        assert path.read_bytes() == BODY


def test_a_given_path_may_have_the_longest_name(server: str, tmp_path: Path) -> None:
    target = tmp_path / ("中" * 85)
    assert fetch_uri(f"{server}/file/x", target).read_bytes() == BODY


def test_open_files_are_closed_again(server: str, tmp_path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    fetch_uri(f"{server}/file/fd", tmp_path / "a")
    before = open_files()
    for number in range(5):
        fetch_uri(f"{server}/file/fd", tmp_path / f"b{number}")
        with pytest.raises(FetchError):
            fetch_uri(f"{server}/nothing", tmp_path / f"c{number}")
    # The server is in this process too, and closes its ends when it comes to it.
    wait_until(lambda: open_files() <= before, "no file more is open than before", 20)
