"""The page of a run, where the engine serves pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator
from pathlib import Path

import pytest

from scythe.engine.dashboard import run_page
from scythe.errors import EngineError
from tests.unit.receiver import Receiver, receiving

TENANT = "707d0855-80ab-4e1f-a156-f1c4546cbf52"


def token(server: str) -> str:
    claims = json.dumps({"sub": TENANT, "server_url": server}).encode()
    return f"eyJhbGciOiJFUzI1NiJ9.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Generator[Receiver]:
    for name in ("HATCHET_CLIENT_SERVER_URL", "HATCHET_CLIENT_TENANT_ID", "SCYTHE_LOCAL_STACK"):
        monkeypatch.delenv(name, raising=False)
    with receiving() as server:
        monkeypatch.setenv("HATCHET_CLIENT_TOKEN", token(server.url))
        yield server


def test_the_page_of_a_run(server: Receiver) -> None:
    server.kind = "text/html; charset=utf-8"
    assert run_page("abc") == f"{server.url}/tenants/{TENANT}/runs/abc"
    assert run_page("def") == f"{server.url}/tenants/{TENANT}/runs/def"
    assert [path for _, path, _, _ in server.requests] == ["/"]  # asked once


@pytest.mark.parametrize(
    ("kind", "codes"), [("application/json", [200]), ("text/html", [404]), ("text/html", [502])]
)
def test_an_engine_without_pages(kind: str, codes: list[int], server: Receiver) -> None:
    server.kind = kind
    server.codes += codes
    assert run_page("abc") is None


def test_a_page_behind_a_login(server: Receiver) -> None:
    server.kind = "text/html"
    server.codes += [302, 401]
    assert run_page("abc") is not None


def test_the_variables_go_before_the_token(
    server: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.kind = "text/html"
    monkeypatch.setenv("HATCHET_CLIENT_TOKEN", token("http://127.0.0.1:9"))
    with pytest.raises(EngineError, match="at http://127.0.0.1:9 does not answer"):
        run_page("abc")
    monkeypatch.setenv("HATCHET_CLIENT_SERVER_URL", f"{server.url}/")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("HATCHET_CLIENT_TENANT_ID=other\n")
    assert run_page("abc") == f"{server.url}/tenants/other/runs/abc"


def test_a_token_that_is_none(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HATCHET_CLIENT_TOKEN", "secret")
    with pytest.raises(EngineError, match="There is no usable Hatchet token"):
        run_page("abc")
    assert server.requests == []
