"""Each public timeout is kept, whatever hangs: S3, the engine, or the name service."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from scythe.engine.client import check_engine, client
from scythe.errors import EngineError, RunTimeoutError, StorageError
from scythe.storage.store import Store
from tests.hanging import HangingProxy

TIMEOUT = 3.0
LATE = TIMEOUT + 2.0


@pytest.fixture
def s3(stack: dict[str, str], folder: str, ended: Any) -> Iterator[HangingProxy]:
    """A way to S3 that can hang; the store that this process opens goes through it."""
    with (
        HangingProxy(urlsplit(stack["AWS_ENDPOINT_URL_S3"]).port or 0) as proxy,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("SCYTHE_STORAGE_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def engine(stack: dict[str, str], ended: Any) -> Iterator[HangingProxy]:
    """A way to the engine that can hang."""
    api = urlsplit(stack["HATCHET_CLIENT_SERVER_URL"]).port or 0
    grpc = int(stack["HATCHET_CLIENT_HOST_PORT"].rpartition(":")[2])
    with (
        HangingProxy(api) as api_proxy,
        HangingProxy(grpc) as grpc_proxy,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        monkeypatch.setenv("HATCHET_CLIENT_SERVER_URL", api_proxy.url)
        monkeypatch.setenv("HATCHET_CLIENT_HOST_PORT", f"127.0.0.1:{grpc_proxy.port}")
        client.cache_clear()
        hang = api_proxy.hang

        def both() -> None:
            hang()
            grpc_proxy.hang()

        monkeypatch.setattr(api_proxy, "hang", both)
        yield api_proxy
    client.cache_clear()


def seconds_of(
    action: Callable[[], Any], error: type[Exception], match: str | None = None
) -> float:
    """Return how long an action takes that must fail."""
    began = time.monotonic()
    with pytest.raises(error, match=match):
        action()
    return time.monotonic() - began


@pytest.mark.parametrize("how", ["hang", "stall"])
def test_waiting_while_s3_hangs(s3: HangingProxy, start: Any, ended: Any, how: str) -> None:
    run, _ = ended(start([{"x": 1.0}]))
    s3.hang() if how == "hang" else s3.stall(after=40)
    named = rf"is over|The S3 server at {s3.url} does not answer: check AWS_ENDPOINT_URL_S3"
    assert seconds_of(lambda: run.wait(timeout=TIMEOUT), RunTimeoutError, named) < LATE
    s3.heal()
    assert run.status().total == 1


def test_waiting_while_s3_begins_to_hang(
    s3: HangingProxy, start: Any, ended: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = ended(start([{"x": 1.0}]))
    threading.Timer(1.5, s3.hang).start()
    wait = lambda: run.wait(progress=True, timeout=8.0)  # noqa: E731
    assert seconds_of(wait, RunTimeoutError, "does not answer") < 10
    assert f"The S3 server at {s3.url} does not answer" in capsys.readouterr().err


def test_a_check_of_a_store_that_hangs(s3: HangingProxy, store: Store) -> None:
    from scythe.settings import store_config
    from scythe.storage.store import open_store

    hanging = open_store(store_config())
    assert hanging.config.endpoint_url == s3.url
    s3.hang()
    assert seconds_of(hanging.check, StorageError, "does not answer within 10 s") < 12


def test_the_engine_hangs(engine: HangingProxy, start: Any, ended: Any) -> None:
    run, reference = ended(start([{"x": 1.0}]))
    engine.hang()
    state = r"has not ended after 3 s \(state "
    assert seconds_of(lambda: reference.result(TIMEOUT), RunTimeoutError, state) < LATE

    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT):
            await reference.aio_result()

    # The loop ends in time as well.
    assert seconds_of(lambda: asyncio.run(limited()), TimeoutError) < LATE
    why = r"The Hatchet engine .*does not answer"
    assert seconds_of(lambda: run.wait(timeout=8.0), RunTimeoutError, why) < 10
    engine.heal()


def test_a_check_of_an_engine_that_hangs(engine: HangingProxy) -> None:
    engine.hang()
    assert seconds_of(check_engine, EngineError, "does not answer within 8 s") < 12


def test_the_name_service_hangs(start: Any, ended: Any) -> None:
    monkeypatch = pytest.MonkeyPatch()
    run, reference = ended(start([{"x": 1.0}]))
    healed = threading.Event()

    def hanging(*_: Any, **__: Any) -> list[Any]:
        healed.wait(60)
        return []

    run.store().client.close()  # the next request asks for the address
    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    try:
        for action in (lambda: run.wait(timeout=TIMEOUT), lambda: reference.result(TIMEOUT)):
            assert seconds_of(action, RunTimeoutError) < LATE
    finally:
        healed.set()
        monkeypatch.undo()
