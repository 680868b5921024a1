"""Scythe: typed, embarrassingly parallel experiments on Hatchet, with their leaves on Ray.

The public names are in these modules: `scythe.base`,
`scythe.registry`, `scythe.experiments`, `scythe.scatter_gather`, `scythe.worker`,
`scythe.settings`, `scythe.hatchet`, and in `scythe.utils` `filesys`, `results` and `s3`.
`scythe.list_runs` and `scythe.open_run` find runs in the bucket.
"""

from typing import TYPE_CHECKING, Any

from scythe.engine.sdk_import import make_sdk_import_cheap

if TYPE_CHECKING:
    from scythe.catalog import list_runs, open_run

__all__ = ["DISTRIBUTION", "list_runs", "open_run"]

make_sdk_import_cheap()

DISTRIBUTION = "scythe-ray"  # that of scythe-engine, which has a folder of this name too, has none


def __getattr__(name: str) -> Any:
    if name not in ("list_runs", "open_run"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # by name: the modules that it needs import this one

    return getattr(import_module("scythe.catalog"), name)
