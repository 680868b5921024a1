"""Leaves that return tables whose columns differ in type from leaf to leaf."""

import datetime as dt
from decimal import Decimal
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import pyarrow as pa

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig

DAY = dt.datetime(2024, 3, 31, 1, 30)
SAMPLES = {
    "null": pa.array([None, None]),
    "boolean": pa.array([True, None]),
    "integer": pa.array([3, -(2**40)]),
    "float": pa.array([0.5, None]),
    "decimal": pa.array([Decimal("1.10"), Decimal("-7.25")]),
    "date": pa.array([DAY.date(), None]),
    "timestamp": pa.array([DAY, None], pa.timestamp("us")),
    "timestamp with zone": pa.array([DAY, None], pa.timestamp("ns", "Europe/Berlin")),
    "duration": pa.array([dt.timedelta(hours=1), None], pa.duration("ms")),
    "time": pa.array([dt.time(1, 2, 3), None]),
    "text": pa.array(["a", None], pa.large_string()),
    "bytes": pa.array([b"\xff", None]),
    "category": pa.array(["u", "v"]).dictionary_encode(),
    "list": pa.array([[1, 2], None]),
    "struct": pa.array([{"a": 1}, None]),
}
PAIRS = [f"{one}|{other}" for one, other in combinations_with_replacement(SAMPLES, 2)]


class TablesInput(ExperimentInputSpec):
    rows: int = 0


class TablesOutput(ExperimentOutputSpec):
    anything: int | float | str | bool


def column(pair: str, leaf: int) -> pa.Array:
    """Values of one leaf for a column of a pair of kinds."""
    return SAMPLES[pair.split("|")[leaf % 2]]


@ExperimentRegistry.Register(name="tables", retries=0)
def tables(spec: TablesInput) -> TablesOutput:
    """Return a column of each pair of kinds, periods as index, and odd columns."""
    leaf = spec.sort_index
    months = pd.period_range("2024-01", periods=2, freq="M", name="month")
    odd = pd.DataFrame(
        {
            "price": [2, 3] if leaf % 2 else [Decimal("1.10"), Decimal("2.20")],
            "when": pd.to_datetime([dt.datetime(9999, 1, 1) if leaf % 2 else DAY] * 2).as_unit(
                "us" if leaf % 2 else "ns"
            ),
            "load": [leaf / 2, None],
        },
        months,
    )
    some = pd.DataFrame({"v": np.arange(3.0) if leaf % 2 else [1.0, None, 3.0]}).dropna()
    frames = {
        "pairs": pa.table({pair: column(pair, leaf) for pair in PAIRS}),
        "odd": odd,
        "some": some,
        "large": pd.DataFrame({"n": np.arange(spec.rows)}),
    }
    anything = [1, 2.5, "text", True][leaf % 4]
    return TablesOutput(anything=anything, dataframes=frames)


if __name__ == "__main__":
    ScytheWorkerConfig().start()
