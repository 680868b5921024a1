"""Tables of real leaves: every two kinds of columns, inline and through the bucket."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.running import load_app, worker
from tests.unit.tables.kinds import pairs
from tests.unit.tables.readers import has_nanoseconds, is_same, is_text, texts, values

N_LEAVES = 8


def start(app: Any, rows: int, **options: Any) -> Any:
    from scythe.experiments import BaseExperiment

    specs = [{"rows": rows} for _ in range(N_LEAVES)]
    experiment: Any = BaseExperiment(runnable=app.tables)
    return experiment.allocate(specs, version="bumppatch", **options)[0]


def check_pairs(app: Any, data: bytes) -> None:
    readers = {
        "pyarrow": pq.read_table(io.BytesIO(data)),
        "pandas": pd.read_parquet(io.BytesIO(data)),
        "polars": pl.read_parquet(io.BytesIO(data)),
    }
    known = pairs()
    for pair in app.PAIRS:
        kind = readers["pyarrow"].schema.field(pair).type
        one, other = pair.split("|")
        has_rule = frozenset([one, other]) in known or "null" in (one, other) or one == other
        assert is_text(kind) == (not has_rule or "text" in (one, other)), pair
        of = texts if is_text(kind) else values
        given = [value for leaf in range(N_LEAVES) for value in of(app.column(pair, leaf))]
        for reader, table in readers.items():
            column = table[pair]
            found = values(column) if isinstance(column, pa.ChunkedArray) else list(column)
            assert len(found) == len(given)
            for left, right in zip(found, given, strict=True):
                assert is_same(left, right) or has_nanoseconds(right), (reader, pair, left, right)


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_every_two_kinds_of_columns(executor: str, stack: dict[str, str], tmp_path: Path) -> None:
    from scythe.scatter_gather import RecursionMap

    app = load_app("tables")
    tree = RecursionMap(factor=2, max_depth=1)
    variables = {"SCYTHE_WORKER_EXECUTOR": executor, "SCYTHE_WORKER_SLOTS": "2"}
    with worker("tables", tmp_path / "log", **variables):
        runs = [
            start(app, 0, batch_size=1, recursion_map=tree),
            start(app, 30_000, batch_size=3),
            start(app, 30_000, batch_size=1),
        ]
        statuses = [run.wait(timeout=150) for run in runs]
    for run, status, rows in zip(runs, statuses, (0, 30_000, 30_000), strict=True):
        assert (status.state, status.done, status.failed) == ("done", N_LEAVES, 0)
        data = run.store().get_bytes(run.layout.final_table("pairs"))
        check_pairs(app, data)
        odd = run.results("odd").to_pandas()
        assert odd["price"].tolist() == ["1.10", "2.20", "2", "3"] * (N_LEAVES // 2)
        assert set(odd["when"]) == {"2024-03-31 01:30:00", "9999-01-01 00:00:00"}
        assert odd["load"].fillna(-1).tolist() == [n for i in range(N_LEAVES) for n in (i / 2, -1)]
        months = odd.index.get_level_values("month")
        assert list(months[:2]) == [pd.Period("2024-01", "M"), pd.Period("2024-02", "M")]
        said = [one for one in status.warnings if "'price'" in one]
        assert len(said) == 1
        assert "table 'odd'" in said[0]
        assert "leaf 0" in said[0]
        assert "int64 in leaf 1" in said[0]
        level = run.results("some").to_pandas().index.get_level_values("sort_subindex")
        assert level.tolist() == [0, 2, 0, 1, 2] * (N_LEAVES // 2)
        assert run.results("large").column("n").to_pylist() == [*range(rows)] * N_LEAVES
        scalars = run.results().to_pandas()
        assert scalars["anything"].tolist() == ["1", "2.5", "text", "True"] * (N_LEAVES // 4)
        assert scalars.index.names[:2] == ["experiment_id", "sort_index"]
