"""The documents of a run: YAML that comes back, and a schema for any model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import Field

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.storage.files import FileReference, S3Url
from scythe.storage.manifest import (
    ExperimentRunManifest,
    InputArtifactLocations,
    from_yaml,
    io_schema,
    to_yaml,
)


def test_a_manifest_comes_back_equal() -> None:
    manifest = ExperimentRunManifest(
        workflow_run_id="w",
        experiment_id="ü/v1.0.0/d",
        experiment_name="ü",
        specs_uri=S3Url("s3://b/specs.pq"),
        io_spec=S3Url("s3://b/io.yml"),
        n_specs=3,
        recursion_map={"factor": 2, "max_depth": 1},
    )
    document = yaml.safe_load(to_yaml(manifest))
    assert list(document)[:3] == ["workflow_run_id", "experiment_id", "experiment_name"]
    assert document["specs_uri"] == "s3://b/specs.pq"
    assert ExperimentRunManifest.model_validate(from_yaml(to_yaml(manifest))) == manifest


def test_a_manifest_of_scythe_engine_is_read() -> None:
    text = b"""
workflow_run_id: w
experiment_id: e/v1.0.0/d
experiment_name: e
specs_uri: s3://b/specs.pq
io_spec: s3://b/io.yml
input_artifacts: s3://b/in.yml
"""
    manifest = ExperimentRunManifest.model_validate(from_yaml(text))
    assert (manifest.n_specs, manifest.recursion_map) == (None, None)


def test_input_artifacts() -> None:
    locations = InputArtifactLocations.model_validate({"files": {"weather": ["s3://b/a%20b"]}})
    assert from_yaml(to_yaml(locations)) == {"files": {"weather": ["s3://b/a%20b"]}}


@pytest.mark.parametrize(
    "value", ["\x00", "a: b\n- c", "é😀", "yes", "1.0", "", None, math.inf, [], {}]
)
def test_yaml_keeps_values(value: Any) -> None:
    assert from_yaml(to_yaml({"v": value})) == {"v": value}


def test_the_schema_of_an_experiment() -> None:
    class In(ExperimentInputSpec):
        width: float = Field(..., description="Width in m", ge=0)
        weather: FileReference

    class Out(ExperimentOutputSpec):
        load: float

    schema = io_schema(In, Out)
    width = schema["$defs"]["In"]["properties"]["width"]
    assert (width["description"], width["minimum"], width["type"]) == ("Width in m", 0, "number")
    assert set(schema["$defs"]["Out"]["properties"]) == {"load"}
    assert set(schema["required"]) == {"input", "output"}
    assert io_schema(In, None)["properties"]["output"]["type"] == "null"


def test_fields_that_json_schema_has_no_word_for() -> None:
    class In(ExperimentInputSpec):
        values: np.ndarray
        maybe: np.ndarray | None = None
        call: Callable[[], int] | None = None
        anything: Any = object()

    class Out(ExperimentOutputSpec):
        values: np.ndarray

    properties = io_schema(In, Out)["$defs"]["In"]["properties"]
    assert {"values", "maybe", "call", "anything"} <= set(properties)
    to_yaml(io_schema(In, Out))
