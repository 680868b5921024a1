"""Requests to a store that is away, or that refuses them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from scythe.errors import StorageError
from scythe.outcomes import StoreConfig
from scythe.storage import store as module
from scythe.storage.store import Store

AWAY = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def refusal(status: int, code: str) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


class Client:
    """Fails some times, then takes what it is given."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def put_object(self, **_: Any) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


def store_of(client: Client, patience: float = 60.0) -> Store:
    return Store(StoreConfig("b", endpoint_url="http://127.0.0.1:1"), client, patience)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        refusal(503, "ServiceUnavailable"),
        refusal(500, "x"),
        refusal(400, "SlowDown"),
        refusal(404, "NoSuchBucket"),  # while another request deletes the folder of the object
    ],
)
def test_a_store_that_is_away_is_asked_again(error: Exception) -> None:
    client = Client(error, AWAY, error)
    assert store_of(client).put_bytes("k", b"") == "s3://b/k"
    assert client.calls == 4


def test_a_refusal_is_told_at_once() -> None:
    client = Client(refusal(403, "AccessDenied"))
    with pytest.raises(StorageError, match="Cannot write s3://b/k"):
        store_of(client).put_bytes("k", b"")
    assert client.calls == 1


def test_a_bucket_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COLLISION_SECONDS", 0.05)
    client = Client(*[refusal(404, "NoSuchBucket")] * 1000)
    with pytest.raises(StorageError, match="create the bucket or correct SCYTHE_STORAGE_BUCKET"):
        store_of(client).put_bytes("k", b"")
    assert client.calls < 1000


def test_a_store_that_stays_away_is_given_up() -> None:
    client = Client(*[AWAY] * 1000)
    with pytest.raises(StorageError, match="check AWS_ENDPOINT_URL_S3"):
        store_of(client, 0.05).put_bytes("k", b"")
    assert 2 < client.calls < 1000
