"""scythe-engine on the same stack. Run by a Python in whose environment it is installed.

`python peer.py worker` serves, `python peer.py run N` prints leaves per second.
"""

import sys
import time

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.experiments import BaseExperiment
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig


class PeerInput(ExperimentInputSpec):
    x: int


class PeerOutput(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(name="benchmark_peer")
def peer(input_spec: PeerInput) -> PeerOutput:
    return PeerOutput(y=2 * input_spec.x)


def run(n: int) -> float:
    specs = [PeerInput(experiment_id="x", sort_index=i, x=i) for i in range(n)]
    begin = time.perf_counter()
    _, reference = BaseExperiment(runnable=peer).allocate(specs, version="bumppatch")
    reference.result()
    return n / (time.perf_counter() - begin)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        ScytheWorkerConfig().start()
    else:
        run(4)
        print(run(int(sys.argv[2])))
