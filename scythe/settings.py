"""Settings from environment variables. They are read when constructed, never at import."""

from __future__ import annotations

import os
from collections.abc import Callable
from configparser import Error as ConfigParserError
from configparser import RawConfigParser
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from scythe.durations import NO_LIMIT, Timeout
from scythe.environment import prepare_environment
from scythe.errors import NoBucketError, SettingsError
from scythe.outcomes import StoreConfig
from scythe.texts import is_plain_path

if TYPE_CHECKING:
    timeout_settings: TimeoutSettings


def __getattr__(name: str) -> Any:
    if name == "timeout_settings":
        return TimeoutSettings()
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


class CheckedSettings(BaseSettings):
    """Settings of which a wrong one is named by its variable, in one sentence.

    Raises:
        SettingsError: A variable has a value that it cannot have.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            prefix = self.model_config.get("env_prefix", "")
            raise SettingsError(explain_values(error, lambda name: f"{prefix}{name}")) from error


def explain_values(error: ValidationError, name_of: Callable[[str], str]) -> str:
    """Say which settings are wrong, and why.

    Args:
        error: What pydantic found.
        name_of: Gives the name of a field's variable.
    """
    wrong: list[str] = []
    for item in error.errors():
        name = name_of(".".join(map(str, item["loc"])) or "?")
        ours = item.get("ctx", {}).get("error")  # of a validator of our own
        reason = f"it {ours}" if ours else item["msg"].lower()
        wrong.append(f"{name} cannot be {item['input']!r:.80}: {reason}.")
    return " ".join(wrong)


class TimeoutSettings(CheckedSettings):
    """Time limits of runs and leaves (`1h`, `90s`, `PT5M` or seconds)."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_TIMEOUT_")

    SCATTER_GATHER_SCHEDULE: Timeout = Field(
        default=NO_LIMIT,
        description="How long a scatter node may wait for a fan worker; by default without limit.",
    )
    SCATTER_GATHER_EXECUTION: Timeout = Field(
        default=NO_LIMIT,
        description="How long a run may take, its leaves included; by default without limit.",
    )
    EXPERIMENT_SCHEDULE: Timeout = Field(
        default=NO_LIMIT,
        description="How long a leaf may wait for a slot; by default without limit.",
    )
    EXPERIMENT_EXECUTION: Timeout = Field(
        default=timedelta(hours=1),
        description="How long one attempt of a leaf may run.",
    )


class CodeSettings(BaseSettings):
    """Policy for leaves that run with other code than `allocate` saw."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_", env_ignore_empty=True)

    CODE_MISMATCH: Literal["warn", "fail", "ignore"] | None = Field(
        default=None,
        description="Whether such leaves count in the run's status (`warn`), fail, or are ignored.",
    )


def code_mismatch(of_run: str = "") -> str:
    """Return what is done about leaves with other code: the stricter of run and environment.

    Args:
        of_run: What `allocate` found in its environment; empty for nothing.

    Raises:
        SettingsError: SCYTHE_CODE_MISMATCH has another value.
    """
    try:
        given = {of_run, CodeSettings().CODE_MISMATCH}
    except ValidationError as error:
        raise SettingsError(
            f"SCYTHE_CODE_MISMATCH must be warn, fail or ignore, got "
            f"{os.environ.get('SCYTHE_CODE_MISMATCH')!r}."
        ) from error
    return next((one for one in ("fail", "warn", "ignore") if one in given), "")


class ScytheStorageSettings(BaseSettings):
    """The bucket, and the folder in it, that hold all runs."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_STORAGE_")

    BUCKET: str = Field(default=..., description="The name of the S3 bucket to use.")
    BUCKET_PREFIX: str = Field(default="scythe", description="The prefix to use for the S3 bucket.")

    @field_validator("BUCKET_PREFIX")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        if value.strip("/") and not is_plain_path(value.strip("/")):
            msg = (
                f"{value!r} is not a plain relative path: use steps of printable characters joined "
                "by '/', none of them empty, '.' or '..'"
            )
            raise ValueError(msg)
        return value


@lru_cache(maxsize=256)
def storage_settings_of(bucket: str, prefix: str) -> ScytheStorageSettings:
    """Return the settings of this bucket and folder: to make them reads the whole environment."""
    return ScytheStorageSettings(BUCKET=bucket, BUCKET_PREFIX=prefix)


def _known_storage(value: Any) -> Any:
    if isinstance(value, dict):
        plain = cast("dict[str, Any]", value)
        bucket = plain.get("BUCKET")
        prefix = plain.get("BUCKET_PREFIX")
        if len(plain) == 2 and isinstance(bucket, str) and isinstance(prefix, str):
            return storage_settings_of(bucket, prefix)
    return value


# For what is read for each leaf: settings that were read before are not made again.
StoragePlace = Annotated[ScytheStorageSettings, BeforeValidator(_known_storage)]


class StoreAccessSettings(BaseSettings):
    """Access to the bucket, where it differs from the usual AWS variables."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_STORAGE_")

    ENDPOINT_URL: str | None = Field(
        default=None, description="URL of the S3 server (else AWS_ENDPOINT_URL_S3, else AWS)."
    )
    REGION: str | None = Field(default=None, description="Region (else AWS_DEFAULT_REGION).")
    ACCESS_KEY_ID: str | None = Field(
        default=None, description="Access key (else the usual AWS sources).", repr=False
    )
    SECRET_ACCESS_KEY: str | None = Field(
        default=None, description="Secret key (else the usual AWS sources).", repr=False
    )


class FetchSettings(CheckedSettings):
    """Limits of the download of input files."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_FETCH_")

    TIMEOUT: Timeout = Field(
        default=timedelta(minutes=10), description="How long the download of one file may take."
    )
    MAX_BYTES: PositiveInt = Field(
        default=50 * 1024**3, description="The largest file that is downloaded, in bytes."
    )


class NotifySettings(CheckedSettings):
    """The address that gets the final status of each run."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_NOTIFY_")

    URL: str | None = Field(
        default=None, description="Gets one POST with the status as JSON when a run ends."
    )

    @field_validator("URL")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "http://none")
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            msg = "must be an http or https URL without user and password"
            raise ValueError(msg)
        return value


class CacheSettings(CheckedSettings):
    """Limits of the cache of downloads."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_CACHE_")

    MAX_BYTES: ByteSize = Field(
        default=ByteSize(20 * 1024**3),
        ge=0,
        description="The size of all cached files (`20GiB`, or bytes); those in use are kept.",
    )


def check_limits() -> None:
    """Raise `SettingsError` unless all limits and addresses in the environment make sense."""
    TimeoutSettings()
    FetchSettings()
    NotifySettings()
    CacheSettings()


def default_storage_settings() -> ScytheStorageSettings:
    """Return the storage settings of the environment, or of the local stack that runs.

    Raises:
        NoBucketError: No bucket is named and no local stack runs.
    """
    prepare_environment()
    try:
        return ScytheStorageSettings()  # pyright: ignore[reportCallIssue] - from the environment
    except ValidationError as error:
        wrong = {item["loc"][0]: item["msg"] for item in error.errors()}
        if "BUCKET_PREFIX" in wrong:
            raise SettingsError(
                f"SCYTHE_STORAGE_BUCKET_PREFIX: {wrong['BUCKET_PREFIX']}."
            ) from error
        raise NoBucketError(
            "SCYTHE_STORAGE_BUCKET is not set and no local stack runs: set it to the name of the "
            "S3 bucket that holds your runs, or start the local stack with `scythe dev`."
        ) from error


def store_config(storage: ScytheStorageSettings | None = None) -> StoreConfig:
    """Return all that opens the object store, also from another process or node."""
    storage = storage or default_storage_settings()
    access = StoreAccessSettings()
    env = os.environ
    own_keys = bool(access.ACCESS_KEY_ID and access.SECRET_ACCESS_KEY)
    return StoreConfig(
        bucket=storage.BUCKET,
        prefix=storage.BUCKET_PREFIX.strip("/"),
        endpoint_url=access.ENDPOINT_URL
        or env.get("AWS_ENDPOINT_URL_S3")
        or env.get("AWS_ENDPOINT_URL"),
        region=access.REGION or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION"),
        access_key_id=access.ACCESS_KEY_ID or env.get("AWS_ACCESS_KEY_ID"),
        secret_access_key=access.SECRET_ACCESS_KEY or env.get("AWS_SECRET_ACCESS_KEY"),
        session_token=None if own_keys else env.get("AWS_SESSION_TOKEN"),
        addressing_style=_addressing_style(),
    )


def _addressing_style() -> str | None:
    """Return `addressing_style` of the user's AWS configuration, as botocore reads it.

    It is sent along, as the hosts of a cluster may lack the file; to import botocore takes long.
    """
    file = os.path.expanduser(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config")  # noqa: PTH111
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    parser = RawConfigParser(default_section="", strict=False)
    try:
        parser.read(file, encoding="utf-8")
    except (ConfigParserError, UnicodeDecodeError, OSError):
        return None  # botocore says what is wrong with it
    for section in (f"profile {profile}", profile):
        nested = parser.get(section, "s3", fallback="")
        for line in nested.splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "addressing_style":
                return value.strip().lower() or None
    return None


def cache_folder() -> Path:
    """Return the folder for downloads: `SCYTHE_CACHE_DIR`, else the user's cache folder."""
    import platformdirs

    given = os.environ.get("SCYTHE_CACHE_DIR")
    return Path(given) if given else Path(platformdirs.user_cache_dir("scythe"))
