"""The end of a run is posted once, and whatever the receiver does harms nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator

import pytest

from scythe.errors import SettingsError
from scythe.scatter import notifying
from scythe.scatter.notifying import notify_end
from scythe.settings import check_limits
from scythe.status import RunStatus
from tests.unit.receiver import Receiver, receiving

STATUS = RunStatus(experiment_id="roof/v1.0.0/now", state="done", total=3, done=2, failed=1)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Generator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv("SCYTHE_NOTIFY_URL", f"{receiver.url}/hook/secret")
        yield receiver


def test_the_status_is_posted_as_json(receiver: Receiver) -> None:
    notify_end(STATUS)
    ((method, path, headers, body),) = receiver.requests
    assert (method, path, headers["Content-Type"]) == ("POST", "/hook/secret", "application/json")
    assert RunStatus.model_validate(json.loads(body)) == STATUS


def test_nobody_is_told_without_an_address(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCYTHE_NOTIFY_URL")
    notify_end(STATUS)
    assert receiver.requests == []


def test_a_busy_receiver_is_asked_again(receiver: Receiver) -> None:
    receiver.codes += [503, 429]
    notify_end(STATUS)
    assert len(receiver.requests) == 3


@pytest.mark.parametrize(
    ("codes", "count", "text"),
    [
        ([503, 503, 503], 3, "the server answered 503 Service Unavailable"),
        ([404], 1, "the server answered 404 Not Found"),
        ([302], 1, "the server answered 302 Found"),
    ],
)
def test_a_refusal_is_a_log_line_without_the_path(
    codes: list[int],
    count: int,
    text: str,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.codes += codes
    with caplog.at_level(logging.WARNING):
        notify_end(STATUS)
    assert len(receiver.requests) == count
    assert text in caplog.text
    assert "roof/v1.0.0/now" in caplog.text
    assert "secret" not in caplog.text


def test_a_receiver_that_is_silent_is_sent_it_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have taken it."""
    monkeypatch.setattr(notifying, "_ANSWER_SECONDS", 0.2)
    receiver.silent = 1.0
    notify_end(STATUS)
    assert len(receiver.requests) == 1
    assert "did not answer within 0.2 s" in caplog.text


def test_a_receiver_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCYTHE_NOTIFY_URL", "http://127.0.0.1:9/")
    notify_end(STATUS)
    assert "http://127.0.0.1" in caplog.text
    assert "refused" in caplog.text


@pytest.mark.parametrize("url", ["hooks.example.com", "ftp://a/b", "http://", "http://u:p@host/"])
def test_a_wrong_address(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker does not start with it; a run that ends is not harmed."""
    monkeypatch.setenv("SCYTHE_NOTIFY_URL", url)
    with pytest.raises(SettingsError, match="SCYTHE_NOTIFY_URL cannot be .* must be an http or"):
        check_limits()
    notify_end(STATUS)
    assert "SCYTHE_NOTIFY_URL" in caplog.text
