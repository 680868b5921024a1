"""Compare the outputs of two runs by spec."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.base import ExperimentInputSpec, index_rows
from scythe.runs.compare import compare
from scythe.specs.codec import encode_specs
from scythe.specs.file import specs_table


class Wall(ExperimentInputSpec):
    u_value: float


def run_of(run: str, outputs: dict[float, dict[str, Any] | None]) -> Any:
    """A run whose leaves have these u-values, and these outputs or none."""
    specs = [
        Wall(experiment_id=run, sort_index=number, u_value=value)
        for number, value in enumerate(outputs)
    ]
    buffer = io.BytesIO()
    pq.write_table(specs_table(index_rows(specs), encode_specs(specs)), buffer)
    index = pd.Index(range(len(specs)), name="sort_index")
    states = ["failed" if one is None else "done" for one in outputs.values()]
    good = [number for number, one in enumerate(outputs.values()) if one is not None]
    scalars = [one for one in outputs.values() if one is not None]
    tables = {
        "leaves": pd.DataFrame({"state": states}, index),
        "scalars": pd.DataFrame(scalars, index[good]),
    }
    store = SimpleNamespace(get_bytes=lambda _: buffer.getvalue(), uri=lambda key: f"s3://b/{key}")
    return SimpleNamespace(
        store=lambda: store,
        layout=SimpleNamespace(specs="", artifacts=f"{run}/artifacts/"),
        results=lambda name: pa.Table.from_pandas(tables[name]),
        list_results_files=lambda: {"scalars": ""},
    )


def test_the_largest_difference_comes_first() -> None:
    none = {"load": math.nan, "kind": "a"}
    here = {0.1: {"load": 10.0, "kind": "a"}, 0.2: {"load": 20.0, "kind": "a"}, 0.3: None}
    there = {0.3: {"load": 1, "kind": "a"}, 0.2: {"load": 50.0, "kind": "b"}, 0.5: None}
    one = run_of("e/v1.0.0/a", {**here, 0.4: none})
    other = run_of("e/v2.0.0/b", {0.4: none, **there, 0.1: {"load": 10.5, "kind": "a"}})
    found = compare(one, other)
    assert (found.n_compared, found.n_changed) == (4, 3)
    assert (found.only_here, found.only_there) == ([], [3])
    changed = found.changed.to_dict("records")
    assert [(row["leaf"], row["other_leaf"], row["output"]) for row in changed] == [
        *[(1, 2, "load"), (0, 4, "load"), (2, 1, "state"), (2, 1, "load")],
        *[(1, 2, "kind"), (2, 1, "kind")],
    ]
    assert [changed[0][name] for name in ("value", "other_value", "difference")] == [20, 50, 30]
    assert "4 specs in both runs, 3 with other outputs" in str(found)
    assert "leaf 1, 2 there: load is 20.0, 50.0 there" in str(found)


def test_equal_runs_have_no_difference() -> None:
    one = run_of("e/v1.0.0/a", {0.1: {"load": [1, 2]}})
    found = compare(one, run_of("e/v1.0.0/b", {0.1: {"load": [1, 2]}}))
    assert (found.n_compared, found.n_changed, len(found.changed)) == (1, 0, 0)
    assert str(found).startswith("1 specs in both runs, 0 with other outputs")
