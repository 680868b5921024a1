"""Pages of the engine's dashboard. The SDK is not imported, which takes a second."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from typing import Any

from scythe.environment import TOKEN, engine_setting, require_engine
from scythe.errors import EngineError

_ANSWER_SECONDS = 3.0


def run_page(workflow_run_id: str) -> str | None:
    """Return the page of a run in the engine's dashboard; None where the engine serves none.

    Raises:
        EngineError: There is no token, or the engine does not answer.
    """
    require_engine()
    claims = _claims(engine_setting(TOKEN) or "")
    tenant = engine_setting("HATCHET_CLIENT_TENANT_ID") or claims.get("sub")
    server = engine_setting("HATCHET_CLIENT_SERVER_URL") or claims.get("server_url")
    if not tenant or not server or not _has_dashboard(str(server).rstrip("/")):
        return None
    return f"{str(server).rstrip('/')}/tenants/{tenant}/runs/{workflow_run_id}"


def _claims(token: str) -> dict[str, Any]:
    try:
        part = token.split(".")[1]
        return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))
    except (IndexError, ValueError, TypeError) as error:
        raise EngineError(
            f"There is no usable Hatchet token. Set {TOKEN} to a token of your engine, or start "
            "the local stack with `scythe dev`."
        ) from error


@lru_cache
def _has_dashboard(server: str) -> bool:
    """Return whether a server has pages for people, and not only an API."""
    import httpx

    try:
        with (
            httpx.Client(follow_redirects=True, timeout=_ANSWER_SECONDS) as asking,
            asking.stream("GET", f"{server}/", headers={"accept": "text/html"}) as answer,
        ):
            kind = answer.headers.get("content-type", "")
            # A page behind a login may be a refusal, but a page.
            is_there = answer.status_code < 500 and answer.status_code not in (404, 405)
            return kind.startswith("text/html") and is_there
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EngineError(
            f"The Hatchet engine at {server} does not answer ({error or type(error).__name__}). "
            "Check that it runs, and HATCHET_CLIENT_SERVER_URL."
        ) from error
