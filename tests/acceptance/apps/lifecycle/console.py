"""The function of a console script: all that it serves is made, or imported, when it is called."""

import os


def main() -> int:
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.worker import ScytheWorkerConfig

    class LocalInput(ExperimentInputSpec):
        x: float

    class LocalOutput(ExperimentOutputSpec):
        y: float
        worker: str

    factor = 3

    def tripled(input_spec):
        return LocalOutput(y=factor * input_spec.x, worker=os.environ["SCYTHE_TEST_WORKER"])

    tripled.__annotations__ = {"input_spec": LocalInput, "return": LocalOutput}
    ScytheWorkerConfig(slots=1).start(experiments=[tripled])
    return 0
