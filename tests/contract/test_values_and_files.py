"""Specs and files arrive as they were, in single leaves and in batches of each executor."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import replace
from datetime import datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest

from scythe.base import ExperimentInputSpec
from scythe.experiment import Experiment
from scythe.outcomes import Batch, FailureKind, LeafCall, StoreConfig
from scythe.specs.writer import SpecChecker, SpecRules
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store, open_store
from scythe.storage.uris import split_s3_uri
from tests.contract import experiments
from tests.contract.conftest import Harness, scalars_of, tables_of

BERLIN = ZoneInfo("Europe/Berlin")


def allocated(
    experiment: Experiment[Any, Any], store: Store, specs: list[ExperimentInputSpec]
) -> tuple[RunLayout, int]:
    """Store specs and their files as `allocate` does."""
    layout = RunLayout(store.config.prefix, f"contract/v1.0.0/{uuid.uuid4().hex}")
    rules = SpecRules(experiment.input_validator_type, False, True, True)
    checker = SpecChecker(rules, layout, store)
    chunk = checker.chunk(specs)
    assert chunk is not None
    checker.artifacts.upload(store, lambda _: None)
    file = io.BytesIO()
    pq.write_table(chunk.table, file)
    store.put_bytes(layout.specs, file.getvalue())
    return layout, chunk.table.num_rows


def test_times_zones_and_private_attributes(harness: Harness, store: StoreConfig) -> None:
    when = datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)
    given = {"experiment_id": "x", "sort_index": 0, "when": when, "opens": time(8, tzinfo=BERLIN)}
    spec = experiments.Moments(**given, anything={when: [-0.0]})
    spec._noted = {1: when}
    expected = [spec.when, spec.opens, spec.anything, spec._noted]
    layout, _ = allocated(experiments.tells_moments, open_store(store), [spec, spec])
    base = LeafCall(**vars_of(harness, experiments.tells_moments, spec, store, layout))
    single = harness.do(harness.executor.run(replace(base, spec_row=(layout.specs, 1))))
    texts = [scalars_of(single)["text"]]
    batch = replace(base, batch=Batch(layout.specs, (0, 2)))
    texts += tables_of(harness.do(harness.executor.run(batch)), store)["scalars"][
        "text"
    ].to_pylist()
    assert len(texts) == 3
    for text in texts:
        *received, later = text.split("|")
        assert received == list(map(repr, expected))
        assert "2025, 4, 27, 2, 30" in later
        assert "Europe/Berlin" in later


def vars_of(
    harness: Harness,
    experiment: Experiment[Any, Any],
    spec: ExperimentInputSpec,
    store: StoreConfig,
    layout: RunLayout,
) -> dict[str, Any]:
    given = {name: value for name, value in spec if name not in ("experiment_id", "sort_index")}
    call = harness.call(experiment, store=store, **given)
    values = {name: getattr(call, name) for name in LeafCall.__slots__}
    more = {"spec": "", "experiment_id": layout.experiment_id, "workflow_run_id": "run"}
    return values | more


def test_files_in_lists_dicts_models_and_plain_fields(
    harness: Harness, store: StoreConfig, tmp_path: Path
) -> None:
    def file(name: str) -> Path:
        path = tmp_path / name
        path.write_text(name)
        return path

    spec = experiments.FilesIn(
        experiment_id="x",
        sort_index=0,
        listed=[file("a.tar.gz"), file("b")],
        named={"../up": file("c.txt"), "x/y": file("d"), "": file("e.csv")},
        note=experiments.Note(file=file("f.md")),
    )
    layout, _ = allocated(experiments.passes_files, open_store(store), [spec])
    base = LeafCall(**vars_of(harness, experiments.passes_files, spec, store, layout))
    result = harness.do(harness.executor.run(replace(base, batch=Batch(layout.specs, (0, 1)))))
    tables = tables_of(result, store)
    scalars, files = (tables[name].to_pylist()[0] for name in ("scalars", "result_file_refs"))
    assert scalars["text"] == (
        "listed-0.tar.gz=a.tar.gz listed-1=b named-..%2Fup.txt=c.txt named-x%2Fy=d "
        "named-.csv=e.csv note.file.md=f.md"
    )
    assert "plain" not in scalars
    assert "listed" not in scalars
    results = f"{layout.prefix}results/"
    uris = [*files["listed"], *json.loads(files["named"]).values()]
    uris += [files["note.file"], files["plain"]]
    keys = [split_s3_uri(uri)[1] for uri in uris]
    assert [key.removeprefix(results) for key in keys] == [
        "listed/run-0-0.tar.gz",
        "listed/run-0-1.tar.gz",
        "named/run-0-..%2Fup.txt",
        "named/run-0-x%2Fy.txt",
        "named/run-0-.txt",
        "note.file/run-0.md",
        "plain/run-0.csv",
    ]
    assert list(json.loads(files["named"])) == ["../up", "x/y", ""]
    contents = [open_store(store).get_bytes(key).decode() for key in keys]
    assert contents == ["l0", "l1", "../up", "x/y", "", "noted", "p"]
    single = harness.do(harness.executor.run(replace(base, spec_row=(layout.specs, 0))))
    assert scalars_of(single)["text"] == scalars["text"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("text", "Output text='/"),
        ("deep", "Output anything[0].a='/"),
        ("table", "Output dataframes['t']['f']='/"),
        ("gone", "Output file listed[0]="),
        ("folder", "is a folder: pack it into one file"),
    ],
)
def test_a_path_of_the_removed_folder_is_an_error(
    harness: Harness, store: StoreConfig, how: str, words: str
) -> None:
    failure = harness.failure(experiments.leaves_path, how=how, store=store)
    assert (failure.kind, failure.type) == (FailureKind.APPLICATION, "OutputError")
    assert words in failure.message


def test_a_text_that_mentions_a_path_is_none(harness: Harness, store: StoreConfig) -> None:
    result = harness.result(experiments.leaves_path, how="log", store=store)
    assert scalars_of(result)["text"].endswith("left.txt was written")
