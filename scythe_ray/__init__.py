"""The executor `ray` of Scythe: leaves run on a Ray cluster.

Nothing is opened here: `scythe.executors` finds `scythe_ray.plugin:open_executor`.
"""

from scythe.environment import check_installation

check_installation()
