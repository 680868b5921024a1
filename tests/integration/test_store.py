"""The bucket: what is written comes back, and what goes wrong is said."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import FetchError, StorageError
from scythe.leaf.run import run_leaf
from scythe.locate import code_ref
from scythe.outcomes import LeafCall, LeafFailure, LeafResult, StoreConfig
from scythe.registry import ExperimentRegistry
from scythe.specs.file import specs_table
from scythe.storage.fetch import cached_path, fetch_uri, set_default_store
from scythe.storage.files import FileReference, S3Url
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store, open_store
from scythe.tables.arrow import from_ipc

NAMES = [
    "plain.txt",
    "mit leer.txt",
    "100%.txt",
    "a#b?c=d&e.txt",
    "ü/中😀.txt",
    "a+b;c.txt",
    "[x]{y}.txt",
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", NAMES)
def test_any_key_comes_back(name: str, store: Store, folder: str, tmp_path: Path) -> None:
    key = f"scythe/{folder}/{name}"
    uri = store.put_bytes(key, b"\x00data")
    assert store.get_bytes(key) == store.find_bytes(key) == b"\x00data"
    assert store.size(key) == 5
    assert list(store.list_keys(f"scythe/{folder}/")) == [key]
    assert fetch_uri(uri, tmp_path / "copy").read_bytes() == b"\x00data"
    store.delete(key)
    store.delete(key)  # nothing there is no error
    assert store.find_bytes(key) is None


def test_large_files_go_in_parts(store: Store, folder: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100_000  # 25 MB
    (tmp_path / "large").write_bytes(data)
    key = f"scythe/{folder}/large"
    store.put_file(key, tmp_path / "large")
    assert store.size(key) == len(data)
    store.download(key, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_listings_are_complete_and_in_order(store: Store, folder: str) -> None:
    root = f"scythe/{folder}/"
    names = [f"{root}d{i % 3}/{i:03d}" for i in range(30)] + [f"{root}top"]
    for name in names:
        store.put_bytes(name, b"")
    assert list(store.list_keys(root)) == sorted(names)
    assert list(store.list_keys(root, recursive=False)) == [f"{root}top"]
    assert list(store.list_folders(root)) == ["d0", "d1", "d2"]
    assert list(store.list_folders(f"{root}none/")) == []


def test_an_object_is_stored_while_others_of_its_folder_are_deleted(
    store: Store, folder: str
) -> None:
    def put_and_delete(name: int) -> None:
        for number in range(100):
            store.put_bytes(f"{folder}/deep/er/{name}", b"%d" % number)
            store.delete(f"{folder}/deep/er/{name}")

    with ThreadPoolExecutor() as threads:
        list(threads.map(put_and_delete, range(4)))
    assert list(store.list_keys(f"{folder}/deep/")) == []


def test_one_client_for_each_store(store: Store) -> None:
    assert open_store(store.config) is open_store(replace(store.config))
    assert open_store(replace(store.config, prefix="other")) is not store
    assert open_store(replace(store.config, prefix="other")).bucket == store.bucket


def broken(store: Store, **changes: Any) -> Store:
    return Store(replace(store.config, **changes), patience=0)


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "secret": (
        {"secret_access_key": "wrong"},
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "key": ({"access_key_id": "nobody"}, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "bucket": ({"bucket": "no-such-bucket"}, "create the bucket or correct SCYTHE_STORAGE_BUCKET"),
    "server": (
        {"endpoint_url": "http://127.0.0.1:1"},
        "check AWS_ENDPOINT_URL_S3, and that the S3 server",
    ),
}
VERBS = ["reach", "read", "write", "list", "file"]


@pytest.mark.parametrize(
    ("what", "verb"),
    [(what, verb) for what in WRONG for verb in VERBS],
)
def test_what_is_wrong_is_said(what: str, verb: str, store: Store, tmp_path: Path) -> None:
    changes, hint = WRONG[what]
    wrong = broken(store, **changes)
    file = tmp_path / "f"
    file.write_text("x")
    actions: dict[str, Any] = {
        "reach": wrong.check,
        "read": lambda: wrong.get_bytes("scythe/x"),
        "write": lambda: wrong.put_bytes("scythe/x", b""),
        "list": lambda: list(wrong.list_keys("scythe/")),
        "file": lambda: wrong.put_file("scythe/x", file),
    }
    started = time.monotonic()
    with pytest.raises(StorageError) as error:
        actions[verb]()
    assert time.monotonic() - started < 10
    text = str(error.value)
    assert hint in text
    assert f"s3://{wrong.bucket}" in text
    assert str(wrong.config.endpoint_url) in text
    assert str(store.config.secret_access_key) not in text
    if verb == "read" and what != "bucket":
        with pytest.raises(StorageError):  # only an object that is not there is None
            wrong.find_bytes("scythe/x")


def test_an_object_that_is_not_there(store: Store, folder: str, tmp_path: Path) -> None:
    key = f"scythe/{folder}/none"
    for action in (store.get_bytes, store.size, lambda k: store.download(k, tmp_path / "x")):
        with pytest.raises(
            StorageError, match=f"Cannot read s3://{store.bucket}/{key} .*check the key"
        ):
            action(key)
    with pytest.raises(FetchError, match=f"Cannot fetch s3://{store.bucket}/{key}.*check the key"):
        fetch_uri(store.uri(key), tmp_path / "d" / "x")
    assert list((tmp_path / "d").iterdir()) == []


def test_no_keys_at_all(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    wrong = broken(store, access_key_id=None, secret_access_key=None)
    with pytest.raises(StorageError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        wrong.check()


def test_a_file_above_the_limit(
    store: Store, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = store.put_bytes(f"scythe/{folder}/x", b"12345")
    monkeypatch.setenv("SCYTHE_FETCH_MAX_BYTES", "4")
    with pytest.raises(FetchError, match="it has 5 bytes, more than SCYTHE_FETCH_MAX_BYTES=4"):
        fetch_uri(uri, tmp_path / "x")


def test_files_of_two_buckets(
    store: Store, second_bucket: Store, folder: str, tmp_path: Path
) -> None:
    mine = store.put_bytes(f"scythe/{folder}/a", b"first")
    other = second_bucket.put_bytes("deep/a", b"second")
    set_default_store(store.config)
    try:
        assert fetch_uri(mine, tmp_path / "1").read_bytes() == b"first"
        assert fetch_uri(other, tmp_path / "2").read_bytes() == b"second"
        assert fetch_uri(other, tmp_path / "3", s3=store.client).read_bytes() == b"second"
        assert (
            fetch_uri(other, tmp_path / "4", store=second_bucket.config).read_bytes() == b"second"
        )
    finally:
        set_default_store(None)
    assert cached_path(mine) != cached_path(other)


def test_another_bucket_where_only_the_store_has_keys(
    store: Store, second_bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A node of a cluster has none of the variables; the keys of the run came with the leaf.
    uri = second_bucket.put_bytes("a", b"second")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert fetch_uri(uri, tmp_path / "x", store=store.config).read_bytes() == b"second"


class In(ExperimentInputSpec):
    size: int
    text: str = ""
    extra: FileReference | None = None


class Out(ExperimentOutputSpec):
    values: list[float]
    report: FileReference | None = None


@ExperimentRegistry.Register(name="integration_store_leaf")
def leaf(spec: In, tempdir: Path) -> Out:
    report = tempdir / "report.html"
    report.write_text(f"{spec.size} {len(spec.text)}")
    values = [float(i) for i in range(spec.size)]
    tables = {"small": pd.DataFrame({"a": [1]}), "large": pd.DataFrame({"v": values})}
    return Out(values=values, report=report, dataframes=tables)


def call_of(config: StoreConfig, folder: str, **fields: Any) -> LeafCall:
    return LeafCall(
        leaf_id="00000000-run",
        code=code_ref(leaf),
        spec="",
        experiment_id=f"{folder}/v1.0.0/d",
        store=config,
        workflow_run_id="run",
        **fields,
    )


def test_what_is_large_is_stored_by_the_leaf(store: Store, folder: str, cache: Path) -> None:
    experiment_id = f"{folder}/v1.0.0/d"
    spec = In(experiment_id=experiment_id, sort_index=0, size=20_000)
    call = replace(call_of(store.config, folder), spec=spec.model_dump_json())
    result = run_leaf(call)
    assert isinstance(result, LeafResult), result
    assert isinstance(result.tables["small"], bytes)
    assert isinstance(result.tables["large"], str)
    assert from_ipc(store.get_bytes(result.tables["large"])).num_rows == 20_000
    assert result.scalars == "{}"
    assert len(json.loads(store.get_bytes(str(result.scalars_key)))["values"]) == 20_000
    report = f"scythe/{experiment_id}/results/report/run.html"
    assert result.files == {"report": store.uri(report)}
    assert store.get_bytes(report) == b"20000 0"
    keys = list(store.list_keys(f"scythe/{experiment_id}/"))
    assert run_leaf(call).__class__ is LeafResult  # a second try writes the same objects
    assert list(store.list_keys(f"scythe/{experiment_id}/")) == keys


def test_a_large_spec_is_read_from_the_stored_specs(
    store: Store, folder: str, cache: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    specs = [
        In(experiment_id=f"{folder}/v1.0.0/d", sort_index=i, size=i, text="x" * 5_000_000 * i)
        for i in range(2)
    ]
    table = specs_table([s.index_data() for s in specs], [s.model_dump_json() for s in specs])
    pq.write_table(table, tmp_path / "specs.pq")
    key = RunLayout(store.config.prefix, f"{folder}/v1.0.0/d").specs
    store.put_file(key, tmp_path / "specs.pq")
    result = run_leaf(call_of(store.config, folder, spec_row=(key, 1)))
    assert isinstance(result, LeafResult), result
    assert store.get_bytes(f"scythe/{folder}/v1.0.0/d/results/report/run.html") == b"1 5000000"


def test_an_input_file_that_is_gone(store: Store, folder: str, cache: Path) -> None:
    gone = S3Url(f"s3://{store.bucket}/scythe/{folder}/gone.csv")
    spec = In(experiment_id=f"{folder}/v1.0.0/d", sort_index=0, size=1, extra=gone)
    call = replace(call_of(store.config, folder), spec=spec.model_dump_json())
    outcome = run_leaf(call)
    assert isinstance(outcome, LeafFailure)
    assert outcome.type == "FetchError"
    assert "gone.csv" in outcome.message
    assert "check the key" in outcome.message
