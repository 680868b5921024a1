"""Leaves that are Hatchet tasks of the user's own."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from scythe.base import ExperimentOutputSpec
from scythe.errors import OutputError
from scythe.outcomes import LeafResult
from scythe.scatter.user_tasks import plain_record, plain_spec
from scythe.settings import ScytheStorageSettings
from scythe.tables.arrow import from_ipc


class Out(ExperimentOutputSpec):
    y: float
    report: str = "s3://b/r.html"


def test_the_input_is_the_spec_itself() -> None:
    given = plain_spec('{"x": 1, "sort_index": 2}', "root", ScytheStorageSettings(BUCKET="b"))
    assert given == {
        "x": 1,
        "sort_index": 2,
        "root_workflow_run_id": "root",
        "storage_settings": {"BUCKET": "b", "BUCKET_PREFIX": "scythe"},
    }


def test_the_output_is_an_output_model_as_json() -> None:
    output = Out(y=1.5, dataframes={"t": pd.DataFrame({"a": [1]})})
    record = plain_record(json.loads(output.model_dump_json()))
    assert isinstance(record.outcome, LeafResult)
    assert json.loads(record.outcome.scalars) == {"y": 1.5}
    assert record.outcome.files == {"report": "s3://b/r.html"}
    table = record.outcome.tables["t"]
    assert isinstance(table, bytes)
    assert from_ipc(table).to_pydict() == {"a": [1]}


def test_an_output_of_scythe_engine() -> None:
    tight = pd.DataFrame({"a": [1]}).to_dict(orient="tight")
    record = plain_record({"y": 1, "dataframes": {"t": tight}})
    assert isinstance(record.outcome, LeafResult)
    assert set(record.outcome.tables) == {"t"}


@pytest.mark.parametrize("frames", [{"t": 1}, {"t": "s3://b/k"}, 5], ids=repr)
def test_outputs_that_are_none(frames: Any) -> None:
    with pytest.raises((ValueError, OutputError), match="dataframes"):
        plain_record({"y": 1, "dataframes": frames})
