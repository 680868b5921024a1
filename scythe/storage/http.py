"""Downloads a file by HTTP, unchanged, with retries as the server requests."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.errors import FetchError
from scythe.storage.uris import shown_uri

if TYPE_CHECKING:
    import httpx

_READ_SECONDS = 30.0  # timeout without data from the server
ATTEMPTS = 6  # without a Retry-After of the server
_CONNECTION_ATTEMPTS = 3
_FIRST_PAUSE_SECONDS = 0.5
_PAUSE_MAX_SECONDS = 8.0
ADVICE = {
    401: "It asks for credentials: give a signed URL, or user and password in the URL",
    403: "It refuses access: check whether the URL's signature has expired, and what it allows",
    404: "Check the address: nothing is there",
    410: "Check the address: what was there is gone",
}


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits of one download.

    Attributes:
        deadline: When it must be over, on the monotonic clock.
        max_bytes: The largest size.
        setting: The setting that raises the deadline, for messages.
    """

    deadline: float
    max_bytes: int
    setting: str

    def check_size(self, uri: str, size: int) -> None:
        """Raise `FetchError` if a file is too large."""
        if size > self.max_bytes:
            raise FetchError(
                f"Cannot fetch {shown_uri(uri)}: it has {size} bytes, more than "
                f"SCYTHE_FETCH_MAX_BYTES={self.max_bytes}."
            )

    def timeout_error(self, uri: str) -> FetchError:
        """Return the error of a download that takes too long."""
        return FetchError(
            f"Cannot fetch {shown_uri(uri)}: not there in time. Raise {self.setting} if the file "
            "is that large."
        )


def download(uri: str, part: Path, limits: FetchLimits) -> None:
    """Download a URL to a file, keeping its content encoding.

    Raises:
        FetchError: The download failed or took too long.
    """
    import httpx

    _hide_secrets_of_log()
    pause = _FIRST_PAUSE_SECONDS
    attempt = 0
    while True:
        attempt += 1
        try:
            answer = _attempt(uri, part, limits)
        except httpx.InvalidURL as error:
            raise FetchError(f"Cannot fetch {shown_uri(uri)} (InvalidURL): {error}.") from None
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}"
            wait = 0.0
            final = not isinstance(error, httpx.TransportError) or isinstance(
                error, httpx.UnsupportedProtocol
            )
            advice = "check address and network"
            attempts = _CONNECTION_ATTEMPTS
            message = f"Cannot fetch {shown_uri(uri)} ({reason}): {advice}."
        else:
            if answer is None:
                return
            wait = _retry_after(answer)
            final = answer.status_code < 500 and answer.status_code != 429
            attempts = ATTEMPTS if wait is None else 10**9
            message = _refusal(uri, answer, attempt)
            wait = wait or 0.0
        wait = max(wait, pause)
        if final or attempt >= attempts:
            raise FetchError(message) from None
        if time.monotonic() + wait >= limits.deadline:
            raise FetchError(f"{message} It was not tried again: {limits.setting} is over before.")
        time.sleep(wait)
        pause = min(2 * pause, _PAUSE_MAX_SECONDS)


def _attempt(uri: str, part: Path, limits: FetchLimits) -> httpx.Response | None:
    """Make one request; return the response if it is a refusal."""
    import httpx

    left = limits.deadline - time.monotonic()
    timeout = httpx.Timeout(max(0.05, min(_READ_SECONDS, left)))
    with (
        httpx.Client(follow_redirects=True, timeout=timeout) as client,
        # Else servers would compress what they have as it is.
        client.stream("GET", uri, headers={"accept-encoding": "identity"}) as response,
        part.open("wb") as file,
    ):
        if response.status_code >= 400:
            return response
        limits.check_size(uri, int(response.headers.get("content-length") or 0))
        for (
            block
        ) in response.iter_raw():  # unbuffered, so that the deadline also applies to a slow stream
            file.write(block)
            limits.check_size(uri, file.tell())
            if time.monotonic() > limits.deadline:
                raise limits.timeout_error(uri)
    return None


def _refusal(uri: str, answer: httpx.Response, attempts: int) -> str:
    status = answer.status_code
    advice = ADVICE.get(status, "Check the address")
    if status >= 500 or status == 429:
        advice = f"It did so {attempts} times: try again later" if attempts > 1 else "Try later"
    return (
        f"Cannot fetch {shown_uri(uri)}: the server answered {status} {answer.reason_phrase}. "
        f"{advice}."
    )


def _retry_after(answer: httpx.Response) -> float | None:
    """Return the seconds of the `Retry-After` header."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


class _SecretsFilter(logging.Filter):
    """Removes passwords and signatures from the URLs in httpx's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_shown_argument, record.args))
        return True


def _shown_argument(value: Any) -> Any:
    return shown_uri(value) if type(value).__name__ == "URL" else value


_filter = _SecretsFilter()


def _hide_secrets_of_log() -> None:
    logging.getLogger("httpx").addFilter(_filter)  # the second time does nothing
