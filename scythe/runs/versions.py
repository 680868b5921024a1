"""Versions and runs of an experiment, by the names of folders in the bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar, cast, get_args

from scythe.semver import SemVer, VersioningStrategy, as_version
from scythe.storage.store import Store

ParsedT = TypeVar("ParsedT")
DatetimeFormat = "%Y-%m-%d_%H-%M-%S"


def versions_in(store: Store, prefix: str) -> list[SemVer]:
    """Return the versions that have a folder; other folders are passed over.

    Args:
        store: The bucket.
        prefix: The folder of the experiment, with a slash at its end.
    """
    return _parsed(store.list_folders(prefix), SemVer.FromString, str)


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
    """Return the times at which the runs that have a folder were allocated.

    Args:
        store: The bucket.
        prefix: The folder of the version, with a slash at its end.
    """
    return _parsed(
        store.list_folders(prefix),
        lambda name: datetime.strptime(name, DatetimeFormat),
        lambda time: time.strftime(DatetimeFormat),
    )


def _parsed(
    names: Iterable[str], parse: Callable[[str], ParsedT], format_: Callable[[ParsedT], str]
) -> list[ParsedT]:
    """Parse names, without those that are not exactly what `format_` would write."""
    found: list[ParsedT] = []
    for name in names:
        try:
            value = parse(name)
        except ValueError:
            continue
        if format_(value) == name:
            found.append(value)
    return found
