"""Runs each kind of spec once in this process before anything is allocated, and compares tables."""

import sys

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils import log_interval
from scythe.utils.results import serialize_df_dict, transpose_dataframe_dict

import pandas as pd


class WallInput(ExperimentInputSpec):
    r_value: float
    kind: str = "brick"


class WallOutput(ExperimentOutputSpec):
    loss: float


@ExperimentRegistry.Register()
def validated_wall(input_spec: WallInput) -> WallOutput:
    frame = pd.DataFrame({"month": [1, 2], "loss": [1.0, 2.0]})
    frame = frame.set_index(input_spec.make_multiindex(n_rows=2))
    return WallOutput(loss=10 / input_spec.r_value, dataframes={"monthly": frame})


def main() -> int:
    specs = [
        WallInput(experiment_id="validation", sort_index=i, r_value=i + 1, kind=kind)
        for i, kind in enumerate(["brick", "wood", "glass"])
    ]
    outputs = []
    for i, spec in enumerate(specs):
        outputs.append(validated_wall.mock_run(spec))
        if (i + 1) % log_interval(len(specs)) == 0:
            print("ran", spec.kind)
    tables = transpose_dataframe_dict([output.dataframes for output in outputs])
    scalars = tables["scalars"].reset_index(level="kind")
    print(scalars.set_index("kind")["loss"].round(3).to_dict())
    print({name: len(frame["data"]) for name, frame in serialize_df_dict(tables).items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
