"""The worker: `python main.py`. Its leaves run on Ray; set `SCYTHE_RAY_ADDRESS` for a cluster."""

from experiments import *  # noqa: F403

from scythe.worker import ScytheWorkerConfig

if __name__ == "__main__":
    ScytheWorkerConfig(executor="ray").start()
