"""Each variable with its type and default; nothing is read before it is asked for."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest

from scythe.errors import ScytheError, SettingsError
from scythe.settings import (
    FetchSettings,
    ScytheStorageSettings,
    StoreAccessSettings,
    TimeoutSettings,
    cache_folder,
    code_mismatch,
    default_storage_settings,
    store_config,
)
from scythe.worker import ScytheWorkerConfig
from scythe_ray.config.settings import RaySettings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without any of our variables, in an empty folder, with no local stack."""
    for name in list(os.environ):
        if re.match("SCYTHE_|AWS_|HATCHET_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SCYTHE_DEV_HOME", str(tmp_path / "no-stack"))
    monkeypatch.chdir(tmp_path)


TIMEOUTS = {
    "SCATTER_GATHER_SCHEDULE": timedelta(days=36_500),
    "SCATTER_GATHER_EXECUTION": timedelta(days=36_500),
    "EXPERIMENT_SCHEDULE": timedelta(days=36_500),
    "EXPERIMENT_EXECUTION": timedelta(hours=1),
}
DURATIONS = {
    **{f"SCYTHE_TIMEOUT_{name}": TimeoutSettings for name in TIMEOUTS},
    "SCYTHE_FETCH_TIMEOUT": FetchSettings,
    "SCYTHE_RAY_CONNECT_TIMEOUT": RaySettings,
    "SCYTHE_WORKER_SHUTDOWN_TIMEOUT": ScytheWorkerConfig,
}
WRONG = {
    "0": "must be positive",
    "0s": "must be positive",
    "-5s": "must be positive",
    "-1": "must be positive",
    "-PT5S": "must be positive",
    "abc": "must be a duration such as '90s', '1h30m' or a number of seconds",
    "nan": "must be a duration such as '90s', '1h30m' or a number of seconds",
    "876001h": "must be at most '876000h', the longest that Hatchet takes",
    "inf": "must be at most '876000h', the longest that Hatchet takes",
    "1e300": "must be at most '876000h', the longest that Hatchet takes",
    "9" * 40 + "d": "must be at most '876000h', the longest that Hatchet takes",
}


@pytest.mark.parametrize(("name", "default"), TIMEOUTS.items())
def test_timeouts(name: str, default: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    assert getattr(TimeoutSettings(), name) == default
    monkeypatch.setenv(f"SCYTHE_TIMEOUT_{name}", "1h30m")
    assert getattr(TimeoutSettings(), name) == timedelta(minutes=90)
    monkeypatch.setenv(f"SCYTHE_TIMEOUT_{name}", "")  # as if it were not set
    assert getattr(TimeoutSettings(), name) == default


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("variable", DURATIONS)
def test_a_wrong_duration_is_told_in_one_sentence(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    settings, reason = DURATIONS[variable], WRONG[value]
    if settings is ScytheWorkerConfig and reason == "must be positive":
        reason = "must not be negative"
    if settings is ScytheWorkerConfig and not value.lstrip("0s"):
        assert ScytheWorkerConfig().shutdown_timeout == timedelta(0)  # leaves get no time
        return
    with pytest.raises(SettingsError) as error:
        settings()
    named = rf"{variable}( \(`shutdown_timeout`\))?"
    assert re.fullmatch(rf"{named} cannot be '{value}': it {re.escape(reason)}\.", str(error.value))
    assert isinstance(error.value, ScytheError)


def test_every_setting_has_a_description() -> None:
    for cls in (TimeoutSettings, ScytheStorageSettings, StoreAccessSettings, FetchSettings):
        assert all(field.description for field in cls.model_fields.values())


def test_fetch_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = FetchSettings()
    assert limits.model_dump() == {"TIMEOUT": timedelta(minutes=10), "MAX_BYTES": 50 * 2**30}
    monkeypatch.setenv("SCYTHE_FETCH_MAX_BYTES", "17")
    assert FetchSettings().MAX_BYTES == 17
    monkeypatch.setenv("SCYTHE_FETCH_MAX_BYTES", "0")
    with pytest.raises(
        SettingsError, match="SCYTHE_FETCH_MAX_BYTES cannot be '0': .*greater than 0"
    ):
        FetchSettings()


def test_the_bucket_and_its_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"SCYTHE_STORAGE_BUCKET is not set.*scythe dev"):
        default_storage_settings()
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", "mine")
    settings = default_storage_settings()
    assert (settings.BUCKET, settings.BUCKET_PREFIX) == ("mine", "scythe")
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET_PREFIX", "/team/a/")
    assert store_config().prefix == "team/a"


def test_a_store_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SCYTHE_STORAGE_BUCKET": "mine",
        "AWS_ENDPOINT_URL": "http://general",
        "AWS_ENDPOINT_URL_S3": "http://s3",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_SESSION_TOKEN": "shh",
        "AWS_DEFAULT_REGION": "eu-north-1",
    }.items():
        monkeypatch.setenv(name, value)
    config = store_config()
    assert (config.endpoint_url, config.region) == ("http://s3", "eu-north-1")
    assert (config.access_key_id, config.secret_access_key) == ("key", "hush")
    assert config.session_token == "shh"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert (store_config().endpoint_url, store_config().region) == ("http://general", "eu-west-1")


def test_scythes_own_variables_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SCYTHE_STORAGE_BUCKET": "mine",
        "AWS_ACCESS_KEY_ID": "user",
        "AWS_SECRET_ACCESS_KEY": "user-secret",
        "AWS_SESSION_TOKEN": "user-session",
        "SCYTHE_STORAGE_ENDPOINT_URL": "http://own",
        "SCYTHE_STORAGE_REGION": "xx",
        "SCYTHE_STORAGE_ACCESS_KEY_ID": "own",
        "SCYTHE_STORAGE_SECRET_ACCESS_KEY": "own-secret",
    }.items():
        monkeypatch.setenv(name, value)
    config = store_config()
    assert (config.endpoint_url, config.region) == ("http://own", "xx")
    assert (config.access_key_id, config.secret_access_key) == ("own", "own-secret")
    assert config.session_token is None  # the user's belongs to the user's keys
    assert "secret" not in repr(StoreAccessSettings())


def test_no_keys_at_all_are_left_to_the_aws_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    config = store_config(ScytheStorageSettings(BUCKET="b", BUCKET_PREFIX=""))
    assert (config.bucket, config.prefix, config.endpoint_url) == ("b", "", None)
    assert config.access_key_id is config.secret_access_key is None


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder().name == "scythe"
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"


def test_the_stricter_of_run_and_worker_says_what_is_done_about_other_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (code_mismatch(), code_mismatch("ignore"), code_mismatch("fail")) == (
        "",
        "ignore",
        "fail",
    )
    monkeypatch.setenv("SCYTHE_CODE_MISMATCH", "warn")
    assert (code_mismatch(), code_mismatch("ignore"), code_mismatch("fail")) == (
        "warn",
        "warn",
        "fail",
    )
    monkeypatch.setenv("SCYTHE_CODE_MISMATCH", "")
    assert code_mismatch() == ""
    monkeypatch.setenv("SCYTHE_CODE_MISMATCH", "stop")
    with pytest.raises(SettingsError, match="must be warn, fail or ignore, got 'stop'"):
        code_mismatch()
