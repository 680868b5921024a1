from held import held

from scythe.worker import ScytheWorkerConfig

__all__ = ["held"]

if __name__ == "__main__":
    ScytheWorkerConfig().start()
