"""Versions and runs of an experiment, by the names of folders in the bucket."""

from __future__ import annotations

from datetime import datetime
from typing import cast, get_args

from scythe.semver import SemVer, VersioningStrategy, as_version
from scythe.storage.store import Store

DatetimeFormat = "%Y-%m-%d_%H-%M-%S"


def versions_in(store: Store, prefix: str) -> list[SemVer]:
    """Return the versions that have a folder; other folders are passed over.

    Args:
        store: The bucket.
        prefix: The folder of the experiment, with a slash at its end.
    """
    found: list[SemVer] = []
    for name in store.list_folders(prefix):
        try:
            version = SemVer.FromString(name)
        except ValueError:
            continue
        if str(version) == name:
            found.append(version)
    return found


def next_version(version: SemVer | VersioningStrategy | str, store: Store, prefix: str) -> SemVer:
    """Return a version as given (`1.2.0`), or where a strategy leads; at first to `v1.0.0`.

    Args:
        version: The version or the strategy.
        store: The bucket.
        prefix: The folder of the experiment, with a slash at its end.
    """
    if isinstance(version, SemVer) or version not in get_args(VersioningStrategy):
        return as_version(version)
    latest = max(versions_in(store, prefix), default=None)
    if latest is None:
        return SemVer(major=1)
    return latest.bumped(cast("VersioningStrategy", version))


def run_times_in(store: Store, prefix: str) -> list[datetime]:
    """Return when the runs were allocated that have a folder.

    Args:
        store: The bucket.
        prefix: The folder of the version, with a slash at its end.
    """
    found: list[datetime] = []
    for name in store.list_folders(prefix):
        try:
            time = datetime.strptime(name, DatetimeFormat)
        except ValueError:
            continue
        if time.strftime(DatetimeFormat) == name:
            found.append(time)
    return found
