"""The models that users inherit from: index, keys, and tables in outputs."""

from __future__ import annotations

import json
import logging
import math
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import AnyUrl, Field, ValidationError, computed_field

from scythe.base import (
    ComputedFeatureValue,
    ExperimentIndexAdditionalDataDoesNotMatchNRowsError,
    ExperimentIndexAdditionalDataOverlapsWithSpecError,
    ExperimentIndexNotSerializableError,
    ExperimentInputSpec,
    ExperimentOutputSpec,
    copy_for_run,
    index_rows,
)
from scythe.errors import FetchError
from scythe.settings import ScytheStorageSettings
from scythe.storage.files import FileReference, S3Url

IDS: dict[str, Any] = {"experiment_id": "wall/v1.0.0/d", "sort_index": 3}


class Wall(ExperimentInputSpec):
    width: float
    name: str = "w"
    day: date = date(2024, 1, 1)
    layers: list[float] = Field(default_factory=list)
    options: dict[str, int] = Field(default_factory=dict)
    weather: FileReference | None = None
    insulated: bool | None = None

    @property
    def computed_features(self) -> dict[str, ComputedFeatureValue]:
        return {"area": self.width * 2}


LEVELS = [
    *["experiment_id", "sort_index", "workflow_run_id", "root_workflow_run_id"],
    *["width", "name", "day", "weather", "insulated", "area"],
]


def test_scalar_fields_and_features_are_the_levels_of_the_index() -> None:
    index = Wall(**IDS, width=1.5).make_multiindex()
    assert list(index.names) == LEVELS
    assert index.get_level_values("area").tolist() == [3.0]
    assert index.get_level_values("day").tolist() == ["2024-01-01"]
    assert len(index) == 1


def test_several_rows_get_a_level_of_their_own() -> None:
    spec = Wall(**IDS, width=1.5)
    index = spec.make_multiindex(n_rows=3)
    assert list(index.names) == [*LEVELS, "sort_subindex"]
    assert index.get_level_values("sort_subindex").tolist() == [0, 1, 2]
    assert "sort_subindex" not in spec.make_multiindex(n_rows=3, include_sort_subindex=False).names


def test_additional_index_data() -> None:
    spec = Wall(**IDS, width=1.5)
    same = spec.make_multiindex({"zone": "a"}, n_rows=2)
    assert same.get_level_values("zone").tolist() == ["a", "a"]
    each = spec.make_multiindex([{"zone": "a"}, {"zone": "b"}], n_rows=2)
    assert each.get_level_values("zone").tolist() == ["a", "b"]
    assert "name" not in spec.make_multiindex(additional_excludes=frozenset({"name"})).names


def test_wrong_additional_index_data() -> None:
    spec = Wall(**IDS, width=1.5)
    with pytest.raises(ExperimentIndexAdditionalDataDoesNotMatchNRowsError, match="3 != 1"):
        spec.make_multiindex([{"a": 1}], n_rows=3)
    for key in ("width", "area", "sort_index"):
        with pytest.raises(ExperimentIndexAdditionalDataOverlapsWithSpecError, match=key):
            spec.make_multiindex({key: 1})
        with pytest.raises(ExperimentIndexAdditionalDataOverlapsWithSpecError, match=key):
            spec.make_multiindex([{}, {key: 1}], n_rows=2)
    with pytest.raises(ExperimentIndexNotSerializableError, match="Wall"):
        spec.make_multiindex({"bad": object()})


@pytest.mark.parametrize("key", ["width", "layers", "experiment_id", "more"])
def test_a_feature_with_the_name_of_a_field(key: str) -> None:
    class Clash(Wall):
        @property
        def computed_features(self) -> dict[str, ComputedFeatureValue]:
            return {key: 1}

    with pytest.raises(ExperimentIndexAdditionalDataOverlapsWithSpecError, match=key):
        Clash(**IDS, width=1, more=2).index_data()  # pyright: ignore[reportCallIssue]


def test_extras_and_computed_fields_are_levels() -> None:
    class Spec(ExperimentInputSpec):
        side: float

        @computed_field
        @property
        def area(self) -> float:
            return self.side**2

    data = Spec(**IDS, side=2, city="Wien").index_data()  # pyright: ignore[reportCallIssue]
    assert (data["city"], data["area"]) == ("Wien", 4.0)


def test_nan_and_infinity_stay_numbers_in_the_index() -> None:
    data = Wall(**IDS, width=math.inf).index_data()
    assert (data["width"], data["area"]) == (math.inf, math.inf)


def test_with_local_files_the_index_keeps_the_uris() -> None:
    spec = Wall(**IDS, width=1, weather=S3Url("s3://b/oslo.epw"))
    local = spec.with_local_files({"weather": Path("/tmp/oslo.epw")})
    assert local.weather == Path("/tmp/oslo.epw")
    assert local.index_data()["weather"] == "s3://b/oslo.epw"
    again = local.with_local_files({"weather": Path("/tmp/other.epw")})
    assert again.index_data()["weather"] == "s3://b/oslo.epw"
    assert spec.original_spec is spec


def test_rows_of_many_specs_are_the_index_of_each() -> None:
    class Spec(ExperimentInputSpec):
        size: float = 1.0
        parts: list[int] | None = None

    class Featured(Spec):
        @property
        def computed_features(self) -> dict[str, ComputedFeatureValue]:
            return {"double": 2 * self.size}

    for cls in (Spec, Featured):
        plain = [cls(**IDS, size=size) for size in (1.0, math.inf)]
        specs = [*plain, cls(**IDS, parts=[1]), cls(**IDS, city="Wien")]  # pyright: ignore
        for some in (plain, specs):
            assert index_rows(some) == [spec.index_data() for spec in some]
    mixed = [Spec(**IDS), Featured(**IDS)]
    assert index_rows(mixed) == [spec.index_data() for spec in mixed]
    assert index_rows([Featured(**IDS)])[0]["double"] == 2.0
    assert "parts" not in index_rows([Spec(**IDS, parts=[1])])[0]


def test_a_copy_for_a_run_has_the_index_of_its_own_values() -> None:
    spec = Wall(**IDS, width=1, weather=S3Url("s3://b/oslo.epw"), more=[1])  # pyright: ignore
    local = spec.with_local_files({"weather": Path("/tmp/oslo.epw")})
    copy = copy_for_run(local, {"sort_index": 8, "weather": S3Url("s3://b/new.epw")})
    index = copy.index_data()
    assert (index["sort_index"], index["weather"]) == (8, "s3://b/new.epw")
    assert copy.model_extra == {"more": [1]}
    assert copy.model_fields_set == local.model_fields_set
    assert (local.sort_index, local.index_data()["weather"]) == (3, "s3://b/oslo.epw")


def test_output_keys() -> None:
    spec = Wall(**IDS, width=1)
    key = spec.construct_output_key("report", Path("/tmp/x.tar.gz"))
    assert key == "wall/v1.0.0/d/results/report/00000003.gz"
    spec = spec.model_copy(update={"workflow_run_id": "run-1"})
    assert spec.construct_output_key("report", Path("a.html")).endswith("results/report/run-1.html")


def test_the_prefix_needs_storage_settings() -> None:
    spec = Wall(**IDS, width=1)
    with pytest.raises(ValueError, match="storage_settings"):
        _ = spec.prefix
    settings = ScytheStorageSettings(BUCKET="b", BUCKET_PREFIX="p")
    assert spec.model_copy(update={"storage_settings": settings}).prefix == "p/wall/v1.0.0/d"


def test_log_names_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="scythe.leaf"):
        Wall(**IDS, width=1).log("hello %s")
        Wall(**IDS, width=1).log("careful", logging.WARNING)
    assert [record.getMessage() for record in caplog.records] == [
        "[wall/v1.0.0/d] hello %s",
        "[wall/v1.0.0/d] careful",
    ]
    assert caplog.records[1].levelno == logging.WARNING


def test_fetching_from_a_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "a.txt"
    source.write_text("x")
    spec = Wall(**IDS, width=1)
    path = spec.fetch_uri(source.as_uri())
    assert path == spec.local_path(AnyUrl(source.as_uri()))
    assert path.read_text() == "x"
    assert path.is_relative_to(tmp_path / "cache")
    source.write_text("y")
    assert spec.fetch_uri(source.as_uri()).read_text() == "x"
    assert spec.fetch_uri(source.as_uri(), use_cache=False).read_text() == "y"
    with pytest.raises(FetchError, match="URI:NO_PATH"):
        spec.local_path(AnyUrl("s3://bucket"))


def test_two_runs_do_not_share_downloads() -> None:
    one, other = Wall(**IDS, width=1), Wall(experiment_id="../../../etc", sort_index=0, width=1)
    uri = AnyUrl("https://example.org/passwd")
    assert one.local_path(uri) != other.local_path(uri)
    assert ".." not in str(other.local_path(uri))


class Result(ExperimentOutputSpec):
    load: float = 0.0
    profile: list[float] = Field(default_factory=list)
    report: FileReference | None = None


@pytest.mark.parametrize(
    "table",
    [pd.DataFrame({"a": [1]}), pl.DataFrame({"a": [1]}), pa.table({"a": [1]})],
    ids=["pandas", "polars", "arrow"],
)
def test_tables_are_taken_as_they_are_and_sent_as_arrow(table: Any) -> None:
    output = Result(dataframes={"t": table})
    assert output.dataframes["t"] is table
    back = Result.model_validate_json(output.model_dump_json())
    assert back.dataframes["t"].to_pydict() == {"a": [1]}


def test_tables_in_the_form_of_scythe_engine() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["p", "q"], name="k"))
    output = Result.model_validate({"dataframes": {"t": frame.to_dict(orient="tight")}})
    pd.testing.assert_frame_equal(output.dataframes["t"], frame)


@pytest.mark.parametrize(
    "value", [{"t": 1}, {"t": "s3://b/k.pq"}, {"t": [1]}, {"t": {"a": [1]}}, {"t": None}], ids=repr
)
def test_what_is_no_table_is_refused_by_name(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"dataframes\['t'\] is a .*: give a table of pandas"):
        Result(dataframes=value)


def test_scalar_outputs() -> None:
    output = Result(load=math.nan, profile=[1, math.inf], report=Path("r.html"), dataframes={})
    assert set(output.scalar_fields) == {"load", "profile"}
    assert math.isnan(output.scalar_fields["load"])
    assert json.loads(json.dumps(output.scalar_fields))["profile"] == [1.0, math.inf]


def test_tables_are_in_no_schema() -> None:
    assert set(Result.model_json_schema()["properties"]) == {"load", "profile", "report"}


def test_descriptions_and_bounds() -> None:
    assert ExperimentInputSpec.model_fields["sort_index"].description
    with pytest.raises(ValidationError, match="sort_index"):
        Wall(experiment_id="e", sort_index=-1, width=1)

    class Described(ExperimentInputSpec):
        width: float = Field(..., description="m")

    assert Described.model_json_schema()["properties"]["width"]["description"] == "m"
