# ruff: noqa: I001 - as on the page
from scythe.worker import ScytheWorkerConfig
from my_experiments import my_simulation_fn

config = ScytheWorkerConfig()
config.start(experiments=[my_simulation_fn])
