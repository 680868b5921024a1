"""Scripts and workers find the local stack that runs, and leave the user's own settings alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scythe.environment import TOKEN, prepare_environment
from scythe.errors import EngineError
from scythe.settings import default_storage_settings, store_config
from scythe.storage.store import open_store


@pytest.fixture(autouse=True)
def bare(stack_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment without any of our variables, on a machine where the stack runs."""
    before = dict(os.environ)
    for name in list(os.environ):
        if re.match("SCYTHE_|AWS_|HATCHET_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SCYTHE_DEV_HOME", str(stack_home))
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]  # what the code under test has set


def test_without_a_token_the_stack_is_used(
    stack_env: dict[str, str], stack_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = prepare_environment()
    assert address == stack_env["HATCHET_CLIENT_SERVER_URL"]
    assert {name: os.environ.get(name) for name in stack_env} == stack_env
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"scythe: no {TOKEN} is set, using the local stack at {address} ({stack_home})"
    ]
    assert stack_env[TOKEN] not in lines[0]
    assert prepare_environment() == address
    assert capsys.readouterr().err == ""
    assert default_storage_settings().BUCKET == "scythe"
    open_store(store_config()).check()


def test_the_users_own_aws_keys_are_not_replaced(
    stack_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "hush"}
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    prepare_environment()
    assert {name: os.environ[name] for name in mine} == mine
    assert "AWS_ENDPOINT_URL_S3" not in os.environ
    config = store_config()
    assert config.access_key_id == stack_env["AWS_ACCESS_KEY_ID"]
    assert config.endpoint_url == stack_env["AWS_ENDPOINT_URL_S3"]
    open_store(config).check()


def test_a_profile_counts_as_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    prepare_environment()
    assert "AWS_ACCESS_KEY_ID" not in os.environ


def test_the_users_own_bucket_is_used(
    stack_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", "mine")
    prepare_environment()
    assert os.environ[TOKEN] == stack_env[TOKEN]
    ours = [name for name in os.environ if name.startswith(("AWS_", "SCYTHE_STORAGE_"))]
    assert ours == ["SCYTHE_STORAGE_BUCKET"]
    assert store_config().bucket == "mine"
    assert store_config().endpoint_url is None


def test_with_a_token_of_the_users_own_nothing_is_touched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"{TOKEN}=mine\n")
    before = dict(os.environ)
    assert prepare_environment() is None
    assert dict(os.environ) == before


def test_a_token_that_is_none() -> None:
    from scythe.engine.client import client

    client.cache_clear()
    os.environ[TOKEN] = "not-a-token"
    try:
        with pytest.raises(EngineError, match=r"no usable Hatchet token.*scythe dev") as error:
            client()
        assert "not-a-token" not in str(error.value)
    finally:
        del os.environ[TOKEN]


def test_the_engine_is_checked_within_seconds(
    stack_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scythe.engine.client import check_engine, client

    for name, value in stack_env.items():
        monkeypatch.setenv(name, value)
    client.cache_clear()
    try:
        address = stack_env["HATCHET_CLIENT_HOST_PORT"]
        assert re.fullmatch(rf"Hatchet v0\.\d+\.\d+ at {re.escape(address)}", check_engine())
        client.cache_clear()
        monkeypatch.setenv("HATCHET_CLIENT_HOST_PORT", "127.0.0.1:1")
        with pytest.raises(EngineError, match=r"127.0.0.1:1 cannot be reached"):
            check_engine()
        client.cache_clear()
        header, payload, signature = stack_env[TOKEN].split(".")
        monkeypatch.setenv(TOKEN, f"{header}.{payload}.{signature[::-1]}")
        monkeypatch.setenv("HATCHET_CLIENT_HOST_PORT", address)
        with pytest.raises(EngineError, match="refuses the token: make a new one"):
            check_engine()
    finally:
        client.cache_clear()
