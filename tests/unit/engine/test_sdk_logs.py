"""The lines that remain of the Hatchet SDK's log, and where they go."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Generator
from typing import Any

import pytest
from grpc import StatusCode

from scythe.engine import sdk_logs
from scythe.engine.sdk_logs import SdkErrors, SdkLogger, quiet_logger, reason_of, sentence
from scythe.engine.tasks import LeafError
from scythe.messages import encode_failure
from scythe.outcomes import FailureKind, LeafFailure
from scythe.processes import logs as worker_logs


class RpcError(Exception):
    def details(self) -> str:
        return "connection refused"


@pytest.fixture(autouse=True)
def _loggers_kept(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setattr(worker_logs, "_label", None)
    loggers = [logging.getLogger(name) for name in ("hatchet", "scythe")]
    before = [(one.handlers[:], one.filters[:], one.level, one.parent) for one in loggers]
    yield
    for one, (handlers, filters, level, parent) in zip(loggers, before, strict=True):
        one.handlers[:], one.filters[:], one.parent = handlers, filters, parent
        one.setLevel(level)


@pytest.fixture
def sdk() -> logging.Logger:
    logger = logging.getLogger("hatchet")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.setLevel(logging.INFO)
    quiet_logger()
    return logger


def raised(logger: logging.Logger, message: str, error: Exception) -> None:
    try:
        raise error
    except type(error):
        logger.exception(message)


def test_lines_about_single_leaves_are_left_out(
    sdk: logging.Logger, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    sdk.info("rx: start step run: 1")
    sdk.warning("interrupted read_with_interrupt task of action listener")
    sdk.warning("time since last successful heartbeat: 9 s")
    assert [record.getMessage() for record in caplog.records] == [
        "Time since last successful heartbeat: 9 s"
    ]
    assert capsys.readouterr().out == ""


def test_errors_are_one_line_and_not_said_again_at_once(
    sdk: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in range(5):
        raised(sdk, f"failed heartbeat ({count})", RpcError("long\ndump"))
    (record,) = caplog.records
    assert record.getMessage() == "Failed heartbeat (0): connection refused"
    assert record.exc_info is None
    monkeypatch.setattr(sdk_logs, "_REPEAT", 0.0)
    raised(sdk, "failed heartbeat (6)", RpcError())
    assert len(caplog.records) == 2


def test_a_leaf_that_failed_is_one_line(
    sdk: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    failure = LeafFailure(FailureKind.APPLICATION, "ValueError", "no 7", "Traceback:\n  line 1\n")
    error = LeafError(encode_failure(failure, 1, "run-1"))
    raised(sdk, f"failed step run: work:work/1\n{error}", error)
    (record,) = caplog.records
    assert record.getMessage() == (
        "Failed step run: work:work/1: application_error: ValueError: no 7"
    )


def test_the_engines_return_is_said_in_the_sdks_own_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda *signalled: told.append(signalled))
    caplog.set_level(logging.INFO)
    quiet_logger()
    logging.getLogger("hatchet").warning("action listener established")
    assert not told
    quiet_logger("fan")
    caplog.clear()
    logging.getLogger("hatchet").info("action listener established")
    logging.getLogger("hatchet").info("rx: start step run: 1")
    assert [record.getMessage() for record in caplog.records] == ["Connected to Hatchet again."]
    assert told == [(os.getppid(), signal.SIGURG)]  # which looks whether anything was lost


def test_the_logger_quiets_the_process_that_unpickles_it() -> None:
    worker_logs.configure("leaf")
    logger = quiet_logger()
    assert isinstance(logger, SdkLogger)
    code = textwrap.dedent(f"""
        import logging, pickle
        import hatchet_sdk.logger
        logger = pickle.loads({pickle.dumps(logger)!r})
        logging.getLogger("hatchet").info("rx: start step run: 1")
        logging.getLogger("hatchet").warning("failed to send heartbeat (2)")
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.endswith("WARNING leaf: Failed to send heartbeat (2)")


def test_errors_of_the_start_are_kept_for_one_sentence(
    sdk: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    errors = SdkErrors()
    errors.install()
    raised(sdk, "failed to register workflow: x", RpcError())
    assert errors.last == "Failed to register workflow: x: connection refused"
    assert caplog.records == []
    errors.remove()
    sdk.warning("something else")
    assert len(caplog.records) == 1


def handlers() -> list[Any]:
    logger = logging.getLogger("scythe")
    return [one for one in logger.handlers if isinstance(one, worker_logs.WorkerLogHandler)]


def test_a_users_own_logging_is_left_alone() -> None:
    worker_logs.configure("leaf")  # pytest has a handler at the root
    assert handlers() == []
    assert worker_logs.label() == "leaf"


def test_without_logging_of_their_own_users_see_time_level_and_part() -> None:
    code = textwrap.dedent("""
        import logging
        from scythe.processes import logs as worker_logs
        worker_logs.configure("fan")
        worker_logs.configure("leaf")
        logging.getLogger("scythe.worker").info("said once")
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    (line,) = done.stderr.splitlines()
    date, clock, rest = line.split(" ", 2)
    assert (len(date), len(clock), rest) == (10, 8, "INFO    leaf: said once")


class Refusal(Exception):
    """As gRPC raises it."""

    def code(self) -> Any:
        return StatusCode.UNAUTHENTICATED

    def details(self) -> str:
        return "invalid auth token"


def test_a_refused_token_is_named_with_what_to_do() -> None:
    try:
        raise Refusal
    except Refusal as error:
        record = logging.LogRecord(
            "hatchet", logging.ERROR, "x.py", 1, "failed to send heartbeat", (), sys.exc_info()
        )
        lines = [sentence(record), reason_of(error)]
    for line in lines:
        assert line.startswith("The Hatchet engine refuses the token: make a new one")
        assert line.endswith("and set HATCHET_CLIENT_TOKEN to it.")


def test_the_reason_is_one_line() -> None:
    assert reason_of(ValueError("first\nsecond")) == "first"
    assert reason_of(ValueError()) == "ValueError"
