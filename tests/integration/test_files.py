"""Files and the bucket: limits of time, the way a bucket is named, and what is no file."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import FetchError, OutputError, SpecError, StorageError
from scythe.outcomes import StoreConfig
from scythe.settings import store_config
from scythe.storage.artifacts import InputArtifacts
from scythe.storage.fetch import fetch_uri
from scythe.storage.files import FileReference, S3Url
from scythe.storage.layout import RunLayout
from scythe.storage.leaf_files import OutputFiles
from scythe.storage.store import Store, open_store
from tests.acceptance.running import wait_until


class Silent(http.server.BaseHTTPRequestHandler):
    """A store that takes requests and never answers."""

    def do_HEAD(self) -> None:
        time.sleep(5)

    do_GET = do_HEAD

    def log_message(self, *args: object) -> None:  # pyright: ignore
        """Say nothing."""


class VirtualHosts(http.server.BaseHTTPRequestHandler):
    """A store that takes the name of the bucket only as a part of the host's."""

    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        host = self.headers["host"].partition(":")[0]
        self.seen.append((host, self.path))
        is_virtual = host.startswith("rooms.")
        body = b"data" if is_virtual else b"<Error><Code>AccessDenied</Code></Error>"
        self.send_response(200 if is_virtual else 403)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:  # pyright: ignore
        """Say nothing."""


def serve(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    serving.daemon_threads = True
    thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
    thread.start()
    yield serving.server_address[1]
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.fixture
def silent() -> Iterator[int]:
    yield from serve(Silent)


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of such a store; all hosts below `s3.test` are this one."""
    VirtualHosts.seen = []
    look_up = socket.getaddrinfo

    def local(host: Any, *args: Any, **options: Any) -> Any:
        is_ours = str(host).endswith("s3.test")
        return look_up("127.0.0.1" if is_ours else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    yield from serve(VirtualHosts)


def test_a_store_that_does_not_answer_meets_the_limit(
    silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_FETCH_TIMEOUT", "1s")
    config = StoreConfig("b", "p", f"http://127.0.0.1:{silent}", "x", "key", "secret")
    started = time.monotonic()
    with pytest.raises(FetchError, match=r"s3://b/a.*not there in time. Raise SCYTHE_FETCH_TIMEOU"):
        fetch_uri("s3://b/a", tmp_path / "d" / "a", store=config)
    assert time.monotonic() - started < 4
    assert list((tmp_path / "d").iterdir()) == []


def test_a_file_that_comes_after_the_limit_is_not_left(
    store: Store, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = store.put_bytes(f"scythe/{folder}/a", b"x" * 1000)
    before = set(threading.enumerate())
    monkeypatch.setenv("SCYTHE_FETCH_TIMEOUT", "0.001s")
    with pytest.raises(FetchError, match="not there in time"):
        fetch_uri(uri, tmp_path / "d" / "a")
    wait_until(lambda: not set(threading.enumerate()) - before, "the late download has ended", 60)
    assert list((tmp_path / "d").iterdir()) == []


CONFIGURED = (
    "[{section}]\nregion = x\ns3 =\n    max_queue_size = 5\n    addressing_style = virtual\n"
)


@pytest.mark.parametrize(("profile", "section"), [(None, "default"), ("lab", "profile lab")])
def test_the_addressing_style_of_the_aws_configuration(
    virtual: int,
    profile: str | None,
    section: str,
    stack: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "config"
    file.write_text(CONFIGURED.format(section=section))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    endpoint = f"http://s3.test:{virtual}"
    config = replace(store_config(), bucket="rooms", endpoint_url=endpoint)
    assert config.addressing_style == "virtual"
    monkeypatch.delenv("AWS_CONFIG_FILE")  # the host of a leaf may have no such file
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    assert Store(config).get_bytes("a/b") == b"data"
    assert VirtualHosts.seen == [("rooms.s3.test", "/a/b")]


def test_a_store_that_takes_only_virtual_hosts_is_explained(
    virtual: int, stack: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    config = replace(store_config(), bucket="rooms", endpoint_url=f"http://s3.test:{virtual}")
    with pytest.raises(StorageError, match="virtual-host style needs `addressing_style = virtual`"):
        Store(config).get_bytes("a/b")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_pipes_are_no_files(pipe: Path, store: Store) -> None:
    layout = RunLayout("p", "e/v1.0.0/d")
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(
            SpecError, match=r"Spec 3: the file of field 'weather', .*not a regular"
        ):
            InputArtifacts(layout).add("weather", path, 3)
        with pytest.raises(FetchError, match="it is a pipe, socket or device, not a regular file"):
            fetch_uri(path.as_uri(), pipe.with_name("copy"))

    class Out(ExperimentOutputSpec):
        report: FileReference

    uploads = OutputFiles(store, lambda name, path: f"{name}/{path.name}", None)
    with pytest.raises(OutputError, match="Output file report='.*pipe' is no regular file"):
        uploads.upload(Out(report=pipe))


def test_no_table_shows_a_signature() -> None:
    class In(ExperimentInputSpec):
        weather: FileReference

    spec = In.model_validate(
        {
            "experiment_id": "x",
            "sort_index": 0,
            "weather": "https://me:pass@h/a.csv?id=3&X-Amz-Signature=abcdef",
        }
    )
    assert spec.index_data()["weather"] == "https://***@h/a.csv?id=3&X-Amz-Signature=***"
    assert "abcdef" in str(spec.weather)
    plain = spec.replace_files({"weather": S3Url("s3://b/a?b")})
    assert plain.index_data()["weather"] == "s3://b/a?b"


def test_the_store_is_the_one_of_its_configuration(stack: dict[str, str]) -> None:
    assert open_store(store_config()) is open_store(store_config())
