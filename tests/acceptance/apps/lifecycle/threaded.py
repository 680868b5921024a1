"""A worker in a thread of a program, which stops it when its own input ends."""

import sys
import threading

from held import held

from scythe.worker import ScytheWorkerConfig

if __name__ == "__main__":
    config = ScytheWorkerConfig(does_fan=False, slots=1)
    thread = threading.Thread(target=config.start, kwargs={"experiments": [held]})
    thread.start()
    sys.stdin.read()
    config.stop()
    thread.join()
    print("the program goes on")
