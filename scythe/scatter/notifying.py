"""Posts the final status of a run to an address that the user names."""

from __future__ import annotations

import logging
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from scythe.settings import NotifySettings
from scythe.status import RunStatus

_ANSWER_SECONDS = 3.0
_PAUSES = (0.5, 1.0)  # seconds between attempts
_BUSY = (429, 500, 502, 503, 504)
logger = logging.getLogger(__name__)


def notify_end(status: RunStatus) -> None:
    """Post the final status of a run as JSON to `SCYTHE_NOTIFY_URL`, if that is set.

    Called once for a run, after its status is stored. A failure is a log line: never an error.
    """
    try:
        url = NotifySettings().URL
        if url:
            _post(url, status.model_dump_json().encode())
    except Exception as error:  # noqa: BLE001 - whatever it is, the run has ended well
        logger.warning(
            "Cannot post the end of %s to SCYTHE_NOTIFY_URL%s: %s",
            status.experiment_id,
            _host(),
            _reason(error),
        )


class _NoRedirects(HTTPRedirectHandler):
    """A redirected POST would become a GET without the status."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> None:
        """Follow none: the answer counts as a refusal."""


def _post(url: str, data: bytes) -> None:
    """Post once; again only where the server cannot have taken it."""
    headers = {"Content-Type": "application/json", "User-Agent": "scythe"}
    opener = build_opener(_NoRedirects)
    for pause in (*_PAUSES, None):
        request = Request(url, data, headers)  # noqa: S310 - the setting is checked
        try:
            with opener.open(request, timeout=_ANSWER_SECONDS):
                return
        except HTTPError as error:
            error.close()
            if pause is None or error.code not in _BUSY:
                raise
        except URLError:  # of the connection, or while it was sent
            if pause is None:
                raise
        time.sleep(pause)


def _host() -> str:
    """Return the address without its path, which may be a secret."""
    try:
        found = urlsplit(NotifySettings().URL or "")
    except Exception:  # noqa: BLE001 - the setting is what is wrong
        return ""
    return f" ({found.scheme}://{found.hostname})"


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, URLError):
        return f"{error.reason}"
    if isinstance(error, TimeoutError):
        return f"the server did not answer within {_ANSWER_SECONDS:g} s"
    return f"{type(error).__name__}" if isinstance(error, HTTPException) else f"{error}"
