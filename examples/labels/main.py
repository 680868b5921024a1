"""The worker. Its flags come from the environment: `SCYTHE_WORKER_HAS_GPU=true python main.py`."""

from experiments import *  # noqa: F403

from scythe.worker import ScytheWorkerConfig

if __name__ == "__main__":
    ScytheWorkerConfig(executor="ray").start()
