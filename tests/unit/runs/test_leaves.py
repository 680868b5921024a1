"""Single leaves of a run that takes leaves of another: all have their specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from scythe.errors import ResultNotFoundError
from scythe.outcomes import StoreConfig
from scythe.runs.ending import run_place
from scythe.runs.leaves import RunLeaves
from scythe.specs.file import specs_table
from scythe.storage.fetch import cached_path
from scythe.storage.files import join_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.manifest import to_yaml
from tests.unit.memory_store import MemoryStore

CONFIG = StoreConfig("bucket", endpoint_url="http://127.0.0.1:1")  # nothing answers there
LAYOUT = RunLayout("scythe", "roof/v1.0.0/2026-01-01_00-00-00")


class Bucket(MemoryStore):
    """Single objects, and the specs where this machine's copies of them are."""

    config = CONFIG

    def put_specs(self, key: str, numbers: list[int]) -> None:
        path = cached_path(join_s3_uri(CONFIG.bucket, key), CONFIG.endpoint_url or "")
        path.parent.mkdir(parents=True)
        rows = [{"sort_index": number} for number in numbers]
        pq.write_table(specs_table(rows, [f'{{"x": {number}}}' for number in numbers]), path)


class Retried(RunLeaves):
    """A run with leaves 0 to 4, which takes all but 1 from another."""

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket

    @property
    def layout(self) -> RunLayout:
        return LAYOUT

    def store(self, s3_client: Any = None) -> Any:
        return self._bucket


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Retried:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    bucket = Bucket()
    bucket.put_specs(LAYOUT.specs, [0, 1, 2, 3, 4])
    bucket.put_specs(LAYOUT.specs_to_run, [1])
    uri = f"s3://{CONFIG.bucket}/{LAYOUT.specs}"
    bucket.put_bytes(LAYOUT.manifest, to_yaml({"specs_uri": uri, "sources": ["roof/v1.0.0/x"]}))
    return Retried(bucket)


def test_leaves_that_are_taken_have_their_specs(run: Retried) -> None:
    assert [run.spec_text(leaf) for leaf in (1, 4)] == ['{"x": 1}', '{"x": 4}']
    with pytest.raises(ResultNotFoundError, match="has no leaf 5 among its 5"):
        run.spec_text(5)


def test_the_tree_has_the_specs_that_it_runs(run: Retried) -> None:
    assert run_place(run.store(), run.layout).count() == 1
