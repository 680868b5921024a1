"""Run leaves in a pool of processes of this machine: no engine, no bucket."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.errors import ExecutorError, SpecError, WorkerStartError
from scythe.executor import Executor, ExecutorRequest, load_executor_factory
from scythe.experiment import Experiment
from scythe.locate import code_ref
from scythe.messages import LeafRecord
from scythe.outcomes import LeafCall, LeafFailure, LeafResult, StoreConfig
from scythe.processes.spawning import is_preparing
from scythe.specs.file import index_of, spec_texts
from scythe.specs.source import iterate_specs
from scythe.specs.writer import CHUNK, SpecChecker, SpecRules, SpecsWriter
from scythe.storage.folder_client import SCHEME
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store, open_store
from scythe.tables.gather import LeafSlice, node_tables
from scythe.tables.merge import write_merged

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_kept: list[Any] = []  # what removes the folders of files that leaves have left


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder in place of a bucket.

    Attributes:
        folder: The folder.
        store: What is written there.
        layout: The keys of the run.
    """

    folder: Path
    store: Store
    layout: RunLayout

    def path_text(self, uris: Any) -> Any:
        """Return URIs, in whatever they are, as paths."""
        root = json.dumps(str(self.folder / self.store.bucket))[1:-1]
        return json.loads(json.dumps(uris).replace(f"s3://{self.store.bucket}", root))


def map_local(
    experiment: Experiment[Any, Any], specs: Any, processes: int | None, folder: Path | None
) -> dict[str, pd.DataFrame]:
    """Run all specs and return their tables; see `Experiment.map_local`."""
    import pandas as pd

    if is_preparing():
        raise WorkerStartError(
            "The script calls map_local whenever it is imported, as the processes of the pool do. "
            "Put the call below `if __name__ == '__main__':`."
        )
    place = _make_place(experiment, folder)
    with tempfile.TemporaryDirectory(prefix="scythe-map-") as name:
        table = _checked(experiment, specs, place, Path(name))
        queued = time.time()
        records = _run(experiment, list(spec_texts(table)), place, processes)
        leaves = LeafSlice(range(table.num_rows), index_of(table), records, queued)
        frames: dict[str, pd.DataFrame] = {}
        for table_name, made in node_tables(leaves, place.store).items():
            file = Path(name) / "table.pq"
            write_merged([made], file, final=True, name=table_name)
            frames[table_name] = pd.read_parquet(file)
    return frames


def _make_place(experiment: Experiment[Any, Any], folder: Path | None) -> _Place:
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="scythe-local-"))
        _kept.append(weakref.finalize(experiment, shutil.rmtree, folder, ignore_errors=True))
    folder = folder.absolute()
    bucket = f"local-{uuid.uuid4().hex[:12]}"  # of its own: fetched files are kept by their URI
    config = StoreConfig(bucket, "runs", endpoint_url=f"{SCHEME}{folder}")
    run_id = f"{experiment.name}/v0.0.0/local"
    return _Place(folder, open_store(config), RunLayout(config.prefix, run_id))


def _checked(experiment: Experiment[Any, Any], specs: Any, place: _Place, folder: Path) -> pa.Table:
    """Check specs as `allocate` does, and copy their input files."""
    import pyarrow.parquet as pq

    cls = experiment.input_validator_type
    rules = SpecRules(cls, plain=False, overwrite_sort_index=True, overwrite_experiment_id=True)
    checker, writer = SpecChecker(rules, place.layout, place.store), SpecsWriter(folder)
    source = iterate_specs(specs, place.store, cls)
    while (chunk := checker.chunk(islice(source, CHUNK))) is not None:
        writer.add(chunk.table)
    if not writer.n_specs:
        raise SpecError("There are no specs to run: pass at least one.")
    checker.warn_of_unknown_fields()
    checker.artifacts.upload(place.store, lambda _: None)
    return pq.read_table(writer.finish())


def _run(
    experiment: Experiment[Any, Any], texts: Sequence[str], place: _Place, processes: int | None
) -> list[LeafRecord]:
    executor = load_executor_factory("local")(ExecutorRequest(slots=processes))
    call = LeafCall(
        leaf_id="",
        code=code_ref(experiment),
        spec="",
        experiment_id=place.layout.experiment_id,
        store=place.store.config,
        resources=experiment.options.resources,
        timeout=experiment.execution_timeout.total_seconds(),
        schedule_timeout=float("inf"),
    )
    work = _run_all(executor, call, texts, experiment.options.retries + 1)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        records = asyncio.run(work)
    else:  # in a notebook
        with ThreadPoolExecutor(1, "scythe-map") as thread:
            records = thread.submit(asyncio.run, work).result()
    for record in records:
        if isinstance(record.outcome, LeafResult) and record.outcome.files:
            record.outcome.files = place.path_text(record.outcome.files)
    return records


async def _run_all(
    executor: Executor, call: LeafCall, texts: Sequence[str], tries: int
) -> list[LeafRecord]:
    waiting = asyncio.Semaphore(2 * executor.capacity.slots)

    async def run_one(number: int, text: str) -> LeafRecord:
        run_id = str(uuid.uuid4())
        leaf_id = f"{number:08d}-{run_id}"
        own = replace(call, leaf_id=leaf_id, spec=text, workflow_run_id=run_id)
        async with waiting:
            return await _run_tries(executor, own, tries)

    try:
        await executor.astart()
        return await asyncio.gather(*(run_one(*pair) for pair in enumerate(texts)))
    finally:
        await executor.aclose()


async def _run_tries(executor: Executor, call: LeafCall, tries: int) -> LeafRecord:
    failure: LeafFailure | None = None
    attempt = 0
    while failure is None or (attempt < tries and not failure.kind.is_final):
        attempt += 1
        try:
            outcome: Any = await executor.run(replace(call, attempt=attempt))
        except ExecutorError as error:
            failure = error.failure
        else:
            return LeafRecord(outcome, attempt, call.workflow_run_id)
    return LeafRecord(failure, attempt, call.workflow_run_id)
