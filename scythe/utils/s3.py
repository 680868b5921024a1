"""A boto3 client for the bucket, made on first use; and whether something was run in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from scythe.environment import prepare_environment
from scythe.settings import storage_settings_of, store_config
from scythe.storage.store import open_store

if TYPE_CHECKING:
    s3_client: Any

__all__ = ["check_experiment_exists", "raise_on_forbidden_experiment", "s3_client"]


def __getattr__(name: str) -> Any:
    if name == "s3_client":
        prepare_environment()
        return open_store(store_config(storage_settings_of("", ""))).client  # of any bucket
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def check_experiment_exists(s3: Any, bucket: str, bucket_prefix: str, experiment_id: str) -> bool:
    """Return whether the bucket has anything of an experiment."""
    found = s3.list_objects_v2(Bucket=bucket, Prefix=f"{bucket_prefix}/{experiment_id}")
    return found.get("KeyCount", 0) > 0


def raise_on_forbidden_experiment(
    s3: Any,
    bucket: str,
    bucket_prefix: str,
    experiment_id: str,
    existing_artifacts: Literal["forbid", "overwrite"] = "forbid",
) -> None:
    """Raise `ValueError` if an experiment exists and may not be overwritten."""
    if existing_artifacts == "forbid" and check_experiment_exists(
        s3, bucket, bucket_prefix, experiment_id
    ):
        msg = (
            f"Experiment {experiment_id} already exists (bucket: {bucket}, bucket_prefix: "
            f"{bucket_prefix}): use another id, or existing_artifacts='overwrite'."
        )
        raise ValueError(msg)
