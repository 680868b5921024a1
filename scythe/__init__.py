"""Scythe: typed, embarrassingly parallel experiments on Hatchet, with their leaves on Ray.

The public names are in these modules: `scythe.base`,
`scythe.registry`, `scythe.experiments`, `scythe.scatter_gather`, `scythe.worker`,
`scythe.settings`, `scythe.utils.filesys` and `scythe.hatchet`.
"""

from scythe.engine.sdk_import import make_sdk_import_cheap

make_sdk_import_cheap()
