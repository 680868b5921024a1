"""A batch in this process: what runs between its leaves and after the last one."""

from __future__ import annotations

import gc
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import StorageError
from scythe.experiment import Experiment
from scythe.leaf import batch
from scythe.leaf.batch import BatchPlace, run_batch
from scythe.leaf.journal import count_leaves, time_left
from scythe.leaf.log import LeafLog
from scythe.locate import code_ref
from scythe.outcomes import Batch, BatchResult, LeafCall, StoreConfig
from scythe.registry import ExperimentRegistry
from scythe.specs.codec import encode_spec
from scythe.specs.file import specs_table
from scythe.storage.fetch import cached_path
from scythe.storage.files import join_s3_uri
from scythe.storage.store import open_store
from scythe.tables.packs import read_pack

RUN, KEY = "e/v1.0.0/d", "p/e/v1.0.0/d/specs.pq"


class In(ExperimentInputSpec):
    length: int


class Out(ExperimentOutputSpec):
    text: str


@ExperimentRegistry.Register(name="test_batch_texts")
def texts(spec: In) -> Out:
    """Return text that hardly gets smaller when it is compressed."""
    return Out(text=random.Random(spec.sort_index).randbytes(spec.length // 2).hex())


class Bucket:
    """Takes objects, and looks at the journal while it does."""

    def __init__(self, journal: Path) -> None:
        self.objects: dict[str, bytes] = {}
        self.left: list[float | None] = []
        self._journal = journal

    def put_object(self, Key: str, Body: bytes, **_: Any) -> None:
        self.objects[Key] = Body
        self.left.append(time_left(self._journal))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    bucket = Bucket(tmp_path / "journal")
    monkeypatch.setattr(open_store(store_of(tmp_path)), "client", bucket)
    return bucket


def store_of(folder: Path) -> StoreConfig:
    return StoreConfig("b", "p", endpoint_url=f"http://127.0.0.1:1/{folder.name}", region="x")


def run_texts(
    folder: Path, lengths: list[int], root: str | None = None, **options: Any
) -> BatchResult:
    store = store_of(folder)
    specs = [In(experiment_id=RUN, sort_index=i, length=n) for i, n in enumerate(lengths)]
    file = cached_path(join_s3_uri("b", KEY), store.endpoint_url or "")
    file.parent.mkdir(parents=True, exist_ok=True)
    table = specs_table([spec.index_data() for spec in specs], [encode_spec(s) for s in specs])
    pq.write_table(table, file)
    experiment: Experiment[In, Out] = texts
    call = LeafCall("x", code_ref(experiment), "", RUN, store, workflow_run_id="run", timeout=2.0)
    call = replace(call, root_workflow_run_id=root)
    log = LeafLog(folder / "log")
    place = BatchPlace(folder / "journal", str(folder), log, lambda seconds: True)
    with log:
        result = run_batch(call, Batch(KEY, (0, len(lengths)), **options), place)
    assert isinstance(result, BatchResult), result
    return result


def test_the_tables_of_a_batch_do_not_take_the_time_of_its_last_leaf(
    bucket: Bucket, tmp_path: Path
) -> None:
    result = run_texts(tmp_path, [30_000] * 40)
    assert [type(pack) for pack in result.packs] == [str]
    (left,) = bucket.left
    assert left is not None
    assert left > 100, "a leaf has two seconds"
    tables = dict(read_pack(bucket.objects[str(result.packs[0])]))
    assert [len(text) for text in tables["scalars"].column("text").to_pylist()] == [30_000] * 40


def test_a_small_batch_needs_no_bucket_and_leaves_no_journal(
    bucket: Bucket, tmp_path: Path
) -> None:
    result = run_texts(tmp_path, [4, 0])
    (pack,) = result.packs
    assert isinstance(pack, bytes)
    assert (bucket.objects, result.n_leaves, result.n_failed) == ({}, 2, 0)
    assert not (tmp_path / "journal").exists()


@pytest.mark.usefixtures("bucket")
def test_the_garbage_collector_passes_over_what_was_there_before_the_first_batch(
    tmp_path: Path,
) -> None:
    counts: list[int] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        run_texts(tmp_path / name, [4])
        counts.append(gc.get_freeze_count())
    assert counts[0] > 1000
    assert counts[1] <= counts[0], "what leaves leave behind is collected as ever"


@pytest.mark.usefixtures("bucket")
def test_a_batch_gives_its_journal_back_when_enough_leaves_are_over(tmp_path: Path) -> None:
    first = run_texts(tmp_path, [4, 0, 2], until=1)
    assert (first.packs, first.n_leaves, first.left) == ((), 1, "")
    assert first.journal is not None
    assert count_leaves(first.journal) == 1
    last = run_texts(tmp_path, [4, 0, 2], journal=first.journal, until=3)
    assert (len(last.packs), last.n_leaves, last.journal) == (1, 3, None)


def test_a_batch_of_a_paused_run_ends_after_the_leaf_that_runs(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True])
    monkeypatch.setattr(batch, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(batch, "is_paused", lambda *_: next(answers))
    result = run_texts(tmp_path, [10] * 8, root="root")
    assert (result.n_leaves, result.n_failed, result.journal) == (3, 0, None)
    (pack,) = result.packs
    assert isinstance(pack, bytes)
    assert dict(read_pack(pack))["scalars"].num_rows == 3


def test_a_batch_goes_on_where_the_bucket_does_not_tell_whether_its_run_is_paused(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_away(*_: object) -> bool:
        raise StorageError("the bucket is away")

    monkeypatch.setattr(batch, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(batch, "is_paused", is_away)
    assert run_texts(tmp_path, [10] * 8, root="root").n_leaves == 8
