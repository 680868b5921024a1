"""Settings from environment variables. They are read when constructed, never at import."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from scythe.durations import Duration
from scythe.environment import prepare_environment
from scythe.errors import SettingsError
from scythe.outcomes import StoreConfig


class TimeoutSettings(BaseSettings):
    """How long runs and leaves may wait and run (`1h`, `90s`, `PT5M` or seconds)."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_TIMEOUT_")

    SCATTER_GATHER_SCHEDULE: Duration = Field(
        default=timedelta(hours=1),
        description="How long a scatter/gather node may wait for a fan worker.",
    )
    SCATTER_GATHER_EXECUTION: Duration = Field(
        default=timedelta(hours=1),
        description="How long a scatter/gather node may run, its leaves included.",
    )
    EXPERIMENT_SCHEDULE: Duration = Field(
        default=timedelta(hours=1),
        description="How long a leaf may wait for a slot.",
    )
    EXPERIMENT_EXECUTION: Duration = Field(
        default=timedelta(minutes=1),
        description="How long one try of a leaf may run.",
    )


class ScytheStorageSettings(BaseSettings):
    """The bucket, and the folder in it, that hold all runs."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_STORAGE_")

    BUCKET: str = Field(default=..., description="The name of the S3 bucket to use.")
    BUCKET_PREFIX: str = Field(default="scythe", description="The prefix to use for the S3 bucket.")


@lru_cache(maxsize=256)
def storage_settings_of(bucket: str, prefix: str) -> ScytheStorageSettings:
    """Return the settings of this bucket and folder: to make them reads the whole environment."""
    return ScytheStorageSettings(BUCKET=bucket, BUCKET_PREFIX=prefix)


def _known_storage(value: Any) -> Any:
    if isinstance(value, dict):
        plain = cast("dict[str, Any]", value)
        bucket, prefix = plain.get("BUCKET"), plain.get("BUCKET_PREFIX")
        if len(plain) == 2 and isinstance(bucket, str) and isinstance(prefix, str):
            return storage_settings_of(bucket, prefix)
    return value


# For what is read for each leaf: settings that were read before are not made again.
StoragePlace = Annotated[ScytheStorageSettings, BeforeValidator(_known_storage)]


class StoreAccessSettings(BaseSettings):
    """How the bucket is reached, where that differs from the usual AWS variables."""

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


class FetchSettings(BaseSettings):
    """Limits of the download of input files."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_FETCH_")

    TIMEOUT: Duration = Field(
        default=timedelta(minutes=10), description="How long the download of one file may take."
    )
    MAX_BYTES: int = Field(
        default=50 * 1024**3, description="The largest file that is downloaded, in bytes."
    )


def default_storage_settings() -> ScytheStorageSettings:
    """Return the storage settings of the environment, or of the local stack that runs.

    Raises:
        SettingsError: No bucket is named and no local stack runs.
    """
    prepare_environment()
    try:
        return ScytheStorageSettings()  # pyright: ignore[reportCallIssue] - from the environment
    except ValidationError as error:
        raise SettingsError(
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
    )


def cache_folder() -> Path:
    """Return the folder for downloads: `SCYTHE_CACHE_DIR`, else the user's cache folder."""
    import platformdirs

    given = os.environ.get("SCYTHE_CACHE_DIR")
    return Path(given) if given else Path(platformdirs.user_cache_dir("scythe"))
