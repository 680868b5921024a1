"""One leaf, from its spec to its outcome. What needs the bucket is in the integration tests."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import Field

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.experiment import Experiment
from scythe.leaf.failure import format_traceback
from scythe.leaf.run import run_leaf
from scythe.locate import code_ref
from scythe.outcomes import CodeRef, FailureKind, LeafCall, LeafFailure, LeafResult, StoreConfig
from scythe.registry import ExperimentRegistry
from scythe.specs.codec import encode_spec
from scythe.storage.files import FileReference
from scythe.tables.arrow import from_ipc


class In(ExperimentInputSpec):
    text: str = ""
    number: float = 1
    data: Any = None
    weather: FileReference | None = None


class Out(ExperimentOutputSpec):
    y: float = 0
    text: str = ""
    anything: Any = None
    report: FileReference | None = None


def register(**options: Any) -> Callable[[Callable[..., Any]], Experiment[Any, Any]]:
    return ExperimentRegistry.Register(**options)


def call_of(experiment: Experiment[Any, Any], **fields: Any) -> LeafCall:
    spec = In(experiment_id="leaf/v1.0.0/d", sort_index=3, **fields)
    return LeafCall(
        leaf_id="00000003-run",
        code=code_ref(experiment),
        spec=encode_spec(spec),
        experiment_id=spec.experiment_id,
        store=StoreConfig("bucket", endpoint_url="http://127.0.0.1:1"),
        workflow_run_id="run-1",
        root_workflow_run_id="root-1",
    )


def run(experiment: Experiment[Any, Any], **fields: Any) -> LeafResult:
    outcome = run_leaf(call_of(experiment, **fields))
    assert isinstance(outcome, LeafResult), outcome
    return outcome


def fail(experiment: Experiment[Any, Any], **fields: Any) -> LeafFailure:
    outcome = run_leaf(call_of(experiment, **fields))
    assert isinstance(outcome, LeafFailure), outcome
    return outcome


@register()
def echo(spec: In) -> Out:
    return Out(y=spec.number * 2, text=spec.text, anything=spec.data)


def test_scalars_and_stats() -> None:
    before = time.time()
    result = run(echo, text="a\x00b😀", number=math.inf, data={1: [math.nan, None]})
    scalars = json.loads(result.scalars)
    assert (scalars["y"], scalars["text"]) == (math.inf, "a\x00b😀")
    assert math.isnan(scalars["anything"]["1"][0])
    assert (result.files, result.tables, result.scalars_key) == ({}, {}, None)
    assert result.stats.pid == os.getpid()
    assert before <= result.stats.started <= result.stats.finished <= time.time()
    assert 10**6 < result.stats.peak_rss < 10**12


@register()
def identities(spec: In) -> Out:
    assert spec.storage_settings is not None
    return Out(
        anything=[
            *[spec.workflow_run_id, spec.root_workflow_run_id, spec.experiment_id, spec.prefix],
            *[spec.storage_settings.BUCKET, spec.sort_index],
        ]
    )


def test_the_spec_knows_its_run() -> None:
    assert json.loads(run(identities).scalars)["anything"] == [
        *["run-1", "root-1", "leaf/v1.0.0/d", "scythe/leaf/v1.0.0/d", "bucket", 3]
    ]


def test_ids_are_injected_only_where_that_is_wanted() -> None:
    @register(name="no_ids", inject_workflow_run_id=False)
    def no_ids(spec: In) -> Out:
        return Out(anything=spec.workflow_run_id)

    assert json.loads(run(no_ids).scalars)["anything"] is None


@register()
async def awaited(spec: In) -> Out:
    return Out(y=spec.number)


def test_async_functions() -> None:
    assert json.loads(run(awaited, number=5).scalars)["y"] == 5


@register()
def with_tables(spec: In) -> Out:
    frame = pd.DataFrame({"a": [1, 2], "number": [8, 9]})
    return Out(dataframes={"loads": frame, "empty": frame.iloc[:0]})


def test_small_tables_travel_with_the_result() -> None:
    tables = run(with_tables).tables
    frame = from_ipc(tables["loads"]).to_pandas()  # pyright: ignore[reportArgumentType]
    assert frame.index.get_level_values("number").tolist() == [1.0, 1.0]  # the field
    assert frame["number"].tolist() == [8, 9]  # the column
    assert frame.index.get_level_values("workflow_run_id").tolist() == ["run-1", "run-1"]
    assert from_ipc(tables["empty"]).num_rows == 0  # pyright: ignore[reportArgumentType]


@register()
def in_folder(spec: In, tempdir: Path) -> Out:
    (tempdir / "x").write_text("x")
    os.chdir(tempdir)
    os.environ["SCYTHE_LEFT_BEHIND"] = "1"
    return Out(text=str(tempdir))


def test_folder_and_environment_are_as_before(tmp_path: Path) -> None:
    folder, environment = Path.cwd(), dict(os.environ)
    outcome = run_leaf(call_of(in_folder), str(tmp_path))
    assert isinstance(outcome, LeafResult)
    used = Path(json.loads(outcome.scalars)["text"])
    assert used.parent == tmp_path
    assert not used.exists()
    assert Path.cwd() == folder
    assert dict(os.environ) == environment


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@register()
def raising(spec: In) -> Out:
    if spec.text == "deep":
        return inner(20)
    raise spec.data or ERRORS[spec.text]


def inner(depth: int) -> Out:
    if depth:
        return inner(depth - 1)
    raise ValueError("deep down")


ERRORS: dict[str, BaseException] = {
    "plain": ValueError("wrong\x00 wall"),
    "exit": SystemExit(3),
    "exit text": SystemExit("bye"),
    "interrupt": KeyboardInterrupt(),
    "memory": MemoryError(),
    "group": ExceptionGroup("two", [ValueError("a"), TypeError("b")]),
    "unprintable": Unprintable(),
    "surrogate": OSError("file \udcff"),
    "long": ValueError("x" * 10**6),
}


@pytest.mark.parametrize(
    ("text", "kind", "name", "message"),
    [
        ("plain", FailureKind.APPLICATION, "ValueError", "wrong\x00 wall"),
        ("deep", FailureKind.APPLICATION, "ValueError", "deep down"),
        ("exit", FailureKind.APPLICATION, "SystemExit", "the experiment called sys.exit(3)"),
        (
            "exit text",
            FailureKind.APPLICATION,
            "SystemExit",
            "the experiment called sys.exit('bye')",
        ),
        ("interrupt", FailureKind.APPLICATION, "KeyboardInterrupt", ""),
        ("group", FailureKind.APPLICATION, "ExceptionGroup", "two (2 sub-exceptions)"),
        (
            "unprintable",
            FailureKind.APPLICATION,
            "Unprintable",
            "(its message cannot be shown: RuntimeError)",
        ),
        ("surrogate", FailureKind.APPLICATION, "OSError", "file \\udcff"),
        ("long", FailureKind.APPLICATION, "ValueError", "x" * 5000),
    ],
    ids=lambda value: str(value)[:12],
)
def test_whatever_is_raised_is_an_outcome(
    text: str, kind: FailureKind, name: str, message: str
) -> None:
    failure = fail(raising, text=text)
    assert (failure.kind, failure.type, failure.message) == (kind, name, message)
    assert failure.stats.pid == os.getpid()
    assert len(failure.traceback) <= 20_001
    (failure.traceback + failure.message).encode()


def test_memory_errors_say_how_much_was_used() -> None:
    failure = fail(raising, text="memory")
    assert failure.kind is FailureKind.OUT_OF_MEMORY
    assert "GB" in failure.message


def test_a_traceback_begins_in_the_users_code() -> None:
    text = fail(raising, text="deep").traceback
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{__file__}"' in lines[1]
    assert lines[-1] == "ValueError: deep down"
    assert "scythe/leaf/run.py" not in text


def test_of_a_long_traceback_the_end_is_kept() -> None:
    try:
        raise ValueError("start" + "x" * 50_000 + "end")
    except ValueError as error:
        text = format_traceback(error)
    assert text.startswith("…")
    assert text.rstrip().endswith("end")


@register()
def returns(spec: In) -> Out:
    return VALUES[spec.text]()


VALUES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "dict": lambda: {"y": 1},
    "input": lambda: In(experiment_id="e", sort_index=0),
    "scalars": lambda: Out(dataframes={"scalars": pd.DataFrame({"a": [1]})}),
    "refs": lambda: Out(dataframes={"result_file_refs": pd.DataFrame({"a": [1]})}),
    "slash": lambda: Out(dataframes={"a/b": pd.DataFrame({"a": [1]})}),
    "up": lambda: Out(dataframes={"..": pd.DataFrame({"a": [1]})}),
    "twice": lambda: Out(dataframes={"t": pd.DataFrame([[1, 2]], columns=["a", "a"])}),
    "no table": lambda: Out(dataframes={"t": [1]}),
    "series": lambda: Out(dataframes={"t": pd.Series([1])}),
    "cut": lambda: Out(dataframes={"t": pd.DataFrame({"bin": pd.cut([1, 2], 2)})}),
    "late series": lambda: Out().model_copy(update={"dataframes": {"t": pd.Series([1])}}),
    "numpy": lambda: Out(anything={"n": np.int64(1)}),
    "other model": ExperimentOutputSpec,
    "no file": lambda: Out(report=Path("/not/there.html")),
    "folder": lambda: Out(report=Path("/tmp")),
}


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("nothing", "OutputError", "returns returned NoneType, not Out. Return an instance"),
        ("dict", "OutputError", "returned dict, not Out"),
        ("input", "OutputError", "returned In, not Out"),
        ("scalars", "ScalarInDataframesError", "`scalars` key is already in `dataframes`"),
        ("refs", "ResultFileRefsInDataframesError", "`result_file_refs` key"),
        ("slash", "OutputError", "The table name 'a/b' cannot be that of a file"),
        ("up", "OutputError", "The table name '..' cannot be that of a file"),
        ("twice", "OutputError", "Table 't' cannot be stored"),
        ("no table", "ValidationError", "dataframes['t'] is a list"),
        (
            "series",
            "ValidationError",
            "dataframes['t'] is a Series: give a table, with .to_frame().",
        ),
        (
            "late series",
            "OutputError",
            "dataframes['t'] is a Series: give a table, with .to_frame()",
        ),
        (
            "cut",
            "OutputError",
            "Table 't': column 'bin' holds categories of intervals: use .astype(s",
        ),
        ("numpy", "OutputError", "Output 'anything' cannot be stored: Unable to serialize unknown"),
        (
            "other model",
            "OutputError",
            "returned ExperimentOutputSpec, not Out. Return an instance",
        ),
        ("no file", "OutputError", "Output file report='/not/there.html' is not there. Write it"),
        ("folder", "OutputError", "Output file report='/tmp' is a folder: pack it into one file"),
    ],
)
def test_what_cannot_be_stored_is_a_failure_with_a_sentence(
    text: str, name: str, reason: str
) -> None:
    failure = fail(returns, text=text)
    assert failure.type == name
    assert reason in failure.message
    assert "\n" not in failure.message


@register()
def reads_file(spec: In) -> Out:
    assert isinstance(spec.weather, Path)
    return Out(
        text=spec.weather.read_text(), anything=[str(spec.weather), str(spec.original_spec.weather)]
    )


@pytest.fixture
def weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "oslo.epw").write_text("cold")
    return (tmp_path / "oslo.epw").as_uri()


def test_files_are_fetched_into_the_cache(weather: str, tmp_path: Path) -> None:
    scalars = json.loads(run(reads_file, weather=weather).scalars)
    assert scalars["text"] == "cold"
    path, original = scalars["anything"]
    assert Path(path).is_relative_to(tmp_path / "cache")
    assert Path(path).name == "oslo.epw"
    assert original == weather


def test_files_are_copied_where_they_may_be_changed(weather: str) -> None:
    @register(name="changes", local_file_location="copied-to-tempdir")
    def changes(spec: In, tempdir: Path) -> Out:
        assert spec.weather == tempdir / "weather.epw"
        assert isinstance(spec.weather, Path)
        spec.weather.write_text("warm")
        frame = pd.DataFrame({"a": [1]}, index=spec.make_multiindex())
        return Out(text=spec.weather.read_text(), dataframes={"t": frame})

    for _ in range(2):
        result = run(changes, weather=weather)
        assert json.loads(result.scalars)["text"] == "warm"
        table = from_ipc(result.tables["t"])  # pyright: ignore[reportArgumentType]
        assert table.column("weather").to_pylist() == [weather]
    assert json.loads(run(reads_file, weather=weather).scalars)["text"] == "cold"


def test_files_are_left_where_they_are_if_wanted(weather: str) -> None:
    @register(name="no_fetch", auto_fetch_files=False)
    def no_fetch(spec: In) -> Out:
        return Out(text=str(spec.weather))

    assert json.loads(run(no_fetch, weather=weather).scalars)["text"] == weather


def test_a_file_that_cannot_be_fetched_is_the_leafs_failure(weather: str) -> None:
    failure = fail(reads_file, weather=weather + ".gone")
    assert (failure.kind, failure.type) == (FailureKind.APPLICATION, "FetchError")
    assert "oslo.epw.gone" in failure.message
    assert "(an input file of the leaf)" in failure.message


@register()
def forks(spec: In) -> Out:
    if os.fork() == 0 and spec.text == "raise":
        raise ValueError("in the child")
    return Out(y=1)


@pytest.mark.parametrize("text", ["", "raise"])
def test_a_fork_of_the_users_sends_no_second_result(text: str) -> None:
    assert json.loads(run(forks, text=text).scalars)["y"] == 1


def test_code_that_is_not_there_is_no_fault_of_the_leaf() -> None:
    call = call_of(echo)
    outcome = run_leaf(LeafCall("i", CodeRef("x", "not_there", "f"), call.spec, "e", call.store))
    assert isinstance(outcome, LeafFailure)
    assert outcome.kind is FailureKind.ENVIRONMENT
    assert "not_there" in outcome.message


def test_a_spec_of_another_version_of_the_code() -> None:
    call = call_of(echo)
    spec = '{"experiment_id": "e", "sort_index": "first"}'
    outcome = run_leaf(LeafCall("i", call.code, spec, "e", call.store))
    assert isinstance(outcome, LeafFailure)
    assert (outcome.kind, outcome.type) == (FailureKind.APPLICATION, "ValidationError")
    assert "sort_index" in outcome.message


def test_the_peak_is_that_of_the_leaf() -> None:
    @register(name="heavy")
    def heavy(spec: In) -> Out:
        return Out(y=len(bytearray(int(spec.number))))

    large = run(heavy, number=300e6).stats.peak_rss
    small = run(heavy, number=1).stats.peak_rss
    assert large - small > 200e6


class Timed(In):
    at: float = Field(default_factory=time.time)


@register()
def timed(spec: Timed) -> Out:
    return Out(y=spec.at)


def test_defaults_with_a_factory_are_those_of_the_caller() -> None:
    spec = Timed(experiment_id="e", sort_index=0)
    call = call_of(echo)
    outcome = run_leaf(LeafCall("i", code_ref(timed), encode_spec(spec), "e", call.store))
    assert isinstance(outcome, LeafResult)
    assert json.loads(outcome.scalars)["y"] == spec.at
