"""Scythe: typed, embarrassingly parallel experiments on Hatchet, with their leaves on Ray.

The public names are in these modules: `scythe.base`,
`scythe.registry`, `scythe.experiments`, `scythe.scatter_gather`, `scythe.worker`,
`scythe.settings`, `scythe.hatchet`, and in `scythe.utils` `filesys`, `results` and `s3`.
"""

from scythe.engine.sdk_import import make_sdk_import_cheap

make_sdk_import_cheap()

DISTRIBUTION = "scythe-ray"  # that of scythe-engine, which has a folder of this name too, has none
