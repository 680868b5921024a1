"""The executor `ray` of Scythe: leaves run on a Ray cluster.

Nothing is imported or opened here: `scythe.executors` finds `scythe_ray.plugin:open_executor`.
"""
