"""The cost of a leaf of a batch, by part, in µs of processor time, beside a prototype.

    python -m benchmarks.batch_cost [--leaves 20000] [--batch-size 5000]

The leaves do nothing, and no server is needed: the bucket is a dict. The prototype writes specs as
JSON rows of one Parquet file, calls the function for many of them, writes the results of each call
as one Parquet file, and these as one sorted table. It checks nothing, keeps no journal, and knows
of no failure. "the rest" is what a step takes beyond the parts that stand above it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.leaves import NoopInput, noop
from benchmarks.table import Table
from scythe.base import copy_for_run, index_rows
from scythe.leaf.batch import BatchPlace, run_batch
from scythe.leaf.children import children_left
from scythe.leaf.journal import Journal
from scythe.leaf.log import LeafLog
from scythe.leaf.meter import LeafMeter
from scythe.leaf.output import LeafOutput
from scythe.leaf.run import INLINE_BYTES, LeafRunner
from scythe.leaf.state import ProcessState
from scythe.locate import code_ref
from scythe.messages import LeafRecord
from scythe.outcomes import Batch, BatchResult, LeafCall, LeafResult, StoreConfig
from scythe.specs.codec import decode_spec, encode_specs
from scythe.specs.file import index_of, read_rows, spec_texts, specs_table
from scythe.specs.writer import CHUNK, PIECE, SpecChecker, SpecRules, SpecsWriter
from scythe.storage.fetch import cached_path
from scythe.storage.files import join_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.store import open_store
from scythe.tables.gather import LeafSlice, node_tables
from scythe.tables.merge import join_packs
from scythe.tables.packs import write_pack

_RUN = "benchmark_noop/v1.0.0/cost"
_STORE = StoreConfig("bucket", endpoint_url="http://127.0.0.1:1", region="x")
_REPEATS = 3


class Bucket:
    """The methods of an S3 client that are used here."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, Key: str, Body: bytes, **_: Any) -> None:  # noqa: N803 - boto3's names
        self.objects[Key] = Body


class Costs:
    """The steps of a batch, each timed as a whole and by part.

    Args:
        n: Number of leaves.
        size: Leaves of a batch.
        folder: Where files are written.
    """

    def __init__(self, n: int, size: int, folder: Path) -> None:
        self._n, self._size, self._folder = n, size, folder
        self._bucket = Bucket()
        open_store(_STORE).client = self._bucket
        self._table = Table("step", "part", "Scythe [µs/leaf]", "prototype [µs/leaf]")
        self._call = LeafCall(
            "x", code_ref(noop), "", _RUN, _STORE, workflow_run_id="0" * 36, timeout=60.0
        )
        self._sum = [0.0, 0.0]

    def run(self) -> None:
        """Measure and print."""
        self._allocate()
        self._leaves()
        self._gather()
        self._table.row("all", "", *self._sum)

    def _time(self, function: Callable[[], object]) -> float:
        gc.collect()
        gc.freeze()  # what is kept here for the other parts is not to be looked through
        best = float("inf")
        for _ in range(_REPEATS):
            begin = time.process_time()
            function()
            best = min(best, time.process_time() - begin)
        return best / self._n * 1e6

    def _step(
        self, name: str, parts: dict[str, Callable[[], object]], whole: float, prototype: float
    ) -> None:
        known = 0.0
        for part, function in parts.items():
            micros = self._time(function)
            known += micros
            self._table.row(name, part, micros, "")
        self._table.row(name, "the rest", whole - known, "")
        self._table.row(name, "all", whole, prototype)
        self._sum = [self._sum[0] + whole, self._sum[1] + prototype]

    def _allocate(self) -> None:
        checker = SpecChecker(
            SpecRules(NoopInput, False, True, True), RunLayout("scythe", _RUN), open_store(_STORE)
        )

        def make() -> list[NoopInput]:
            return [NoopInput(experiment_id="", sort_index=i, x=i) for i in range(self._n)]

        def whole() -> None:
            writer = SpecsWriter(self._folder)
            source = (NoopInput(experiment_id="", sort_index=i, x=i) for i in range(self._n))
            while (chunk := checker.chunk(islice(source, CHUNK))) is not None:
                writer.add(chunk.table)
            key = RunLayout("scythe", _RUN).specs
            copy = cached_path(join_s3_uri(_STORE.bucket, key), _STORE.endpoint_url or "")
            copy.parent.mkdir(parents=True, exist_ok=True)
            writer.finish().replace(copy)

        def prototype() -> None:
            rows = [{"sort_index": i, "x": i} for i in range(self._n)]
            texts = [json.dumps(row) for row in rows]
            pq.write_table(pa.table({"spec": texts}), self._folder / "rows.pq")

        specs = make()
        pieces = [specs[i : i + PIECE] for i in range(0, self._n, PIECE)]
        rows, texts = index_rows(specs), encode_specs(specs)
        self._step(
            "allocate",
            {
                "the user makes the spec": make,
                "copies with the id of the run": each(copy_for_run, specs, {"experiment_id": _RUN}),
                "specs to text, read back and compared": each(encode_specs, pieces),
                "levels of the index": each(index_rows, pieces),
                "table": lambda: specs_table(rows, texts),
            },
            self._time(whole),
            self._time(prototype),
        )

    def _leaves(self) -> None:
        key = RunLayout("scythe", _RUN).specs
        table = read_rows(_STORE, key, range(self._n))
        texts = list(spec_texts(table))
        specs = [decode_spec(NoopInput, text) for text in texts]
        outputs = [noop.call(spec) for spec in specs]
        meter, output = LeafMeter(), LeafOutput(_RUN, _STORE, INLINE_BYTES)
        runner = LeafRunner(self._call, noop, meter, str(self._folder))
        crash = (self._folder / "crash").open("ab", buffering=0)
        state, log = ProcessState(crash), LeafLog(self._folder / "log")
        results = [runner.run(text, "leaf", "run") for text in texts]
        assert all(isinstance(result, LeafResult) for result in results)
        records = [LeafRecord(one, 1, f"{'0' * 36}-{i}") for i, one in enumerate(results)]
        slices = [
            LeafSlice(
                range(i, i + self._size),
                index_of(table.slice(i, self._size)),
                records[i : i + self._size],
                time.time(),
            )
            for i in range(0, self._n, self._size)
        ]
        made = [node_tables(one, open_store(_STORE)) for one in slices]

        def between(seconds: float) -> bool:
            if not state.is_due(seconds):
                return True
            children_left()
            state.restore_soon()
            return not state.is_used_up

        def keep_journal() -> None:
            with Journal(self._folder / "journal-alone") as journal:
                for record in records:
                    journal.begin(60.0)
                    journal.add(record)

        place = BatchPlace(self._folder / "journal", str(self._folder), log, between)

        def whole() -> None:
            for first in range(0, self._n, self._size):
                rows = (first, min(first + self._size, self._n))
                with log:
                    assert isinstance(run_batch(self._call, Batch(key, rows), place), BatchResult)

        def keep_logs() -> None:
            with log:
                for result in results:
                    log.renew()
                    log.added_to(result)

        self._step(
            "leaf",
            {
                "read the specs": lambda: list(spec_texts(read_rows(_STORE, key, range(self._n)))),
                "spec from text": lambda: [decode_spec(NoopInput, text) for text in texts],
                "the user's function": each(noop.call, specs),
                "output to text, time and memory": lambda: [
                    (meter.start(), output.result("leaf", *pair, meter))
                    for pair in zip(specs, outputs, strict=True)
                ],
                "journal": keep_journal,
                "log": keep_logs,
                "process as before": lambda: [between(0.0) for _ in texts],
                "tables": lambda: [node_tables(one, open_store(_STORE)) for one in slices],
                "pack": each(write_pack, made),
            },
            self._time(whole),
            self._time(lambda: prototype_leaves(self._folder, self._size)),
        )
        meter.close()

    def _gather(self) -> None:
        packs = [self._folder / f"{number}.arrow" for number in range(len(self._bucket.objects))]
        for file, key in zip(packs, sorted(self._bucket.objects), strict=True):
            file.write_bytes(self._bucket.objects[key])

        def prototype() -> None:
            files = sorted(self._folder.glob("prototype-*.pq"))
            joined = pa.concat_tables([pq.read_table(file) for file in files])
            pq.write_table(joined.sort_by("sort_index"), self._folder / "final.pq")

        whole = self._time(lambda: join_packs(packs, self._folder, final=True))
        self._step("gather", {}, whole, self._time(prototype))


def each(function: Callable[..., object], items: Iterable[Any], *more: Any) -> Callable[[], object]:
    """Return what calls a function for each of these items."""
    return lambda: [function(item, *more) for item in items]


def prototype_leaves(folder: Path, size: int) -> None:
    """Run the leaves of the prototype: one call for many rows."""
    texts = pq.read_table(folder / "rows.pq").column("spec").to_pylist()
    for first in range(0, len(texts), size):
        specs = [json.loads(text) for text in texts[first : first + size]]
        rows = [{"sort_index": spec["sort_index"], "y": 2 * spec["x"]} for spec in specs]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"prototype-{first:09d}.pq")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=5000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scythe-cost-") as folder:
        os.environ["SCYTHE_CACHE_DIR"] = folder
        Costs(options.leaves, options.batch_size, Path(folder)).run()


if __name__ == "__main__":
    main()
