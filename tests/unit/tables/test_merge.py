"""Many sorted files become one, in bounded memory, and equal to what memory would have made."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.tables.arrow import to_ipc
from scythe.tables.combine import concat
from scythe.tables.merge import merge_files, write_merged
from scythe.tables.names import ORDER
from scythe.tables.pandas_index import with_pandas_index
from scythe.tables.user_tables import with_leaf_index


def part(orders: list[int], **columns: Any) -> pa.Table:
    made = {name: [make(order) for order in orders] for name, make in columns.items()}
    table = with_pandas_index(pa.table({"sort_index": orders, **made}), ["sort_index"])
    return table.append_column(ORDER, pa.array(orders, pa.int64()))


def write(folder: Path, tables: list[pa.Table]) -> list[Path]:
    files = [folder / f"part-{number}.pq" for number in range(len(tables))]
    for table, file in zip(tables, files, strict=True):
        write_merged([table], file, final=False)
    return files


@pytest.mark.parametrize("seed", range(6))
def test_merged_files_equal_what_memory_would_have_made(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    count, tables = rng.choice([1, 5, 40_000]), []
    for number in range(rng.randint(1, 7)):
        # Leaves may have no row, one, or many; files differ in columns, length and batches.
        rows = sorted(rng.choices(range(count), k=rng.choice([0, 1, 20, 20_000])))
        columns: dict[str, Any] = {"value": lambda order: order * 0.5}
        if number % 2:
            columns["name"] = str
        if number % 3 == 0:
            columns["value"] = int
        tables.append(part(rows, **columns))
    target = tmp_path / "all.pq"
    rows = merge_files(write(tmp_path, tables), target, final=True)
    found, expected = pd.read_parquet(target), concat(tables, final=True).sort_by(ORDER).to_pandas()
    assert rows == len(found) == sum(table.num_rows for table in tables)
    assert found.index.is_monotonic_increasing
    assert ORDER not in found.columns
    keys = ["sort_index", *found.columns]
    tidy = [
        frame.reset_index()[keys].sort_values(keys, ignore_index=True)
        for frame in (found, expected)
    ]
    pd.testing.assert_frame_equal(*tidy)


def test_rows_of_one_leaf_stay_together_and_in_order(tmp_path: Path) -> None:
    many = 40_000  # more than one batch, all with one order
    table = pa.table({"step": list(range(many)), ORDER: pa.array([5] * many, pa.int64())})
    others = pa.table({"step": [-1, -2], ORDER: pa.array([4, 6], pa.int64())})
    merge_files(write(tmp_path, [others, table]), tmp_path / "all.pq", final=True)
    assert pq.read_table(tmp_path / "all.pq").column("step").to_pylist() == [-1, *range(many), -2]


def test_an_inner_node_keeps_the_order_for_its_parent(tmp_path: Path) -> None:
    files = write(tmp_path, [part([0, 2]), part([1, 3])])
    merge_files(files, tmp_path / "inner.pq", final=False)
    assert pq.read_table(tmp_path / "inner.pq").column(ORDER).to_pylist() == [0, 1, 2, 3]


def test_files_without_rows_give_a_table_with_all_columns(tmp_path: Path) -> None:
    files = write(tmp_path, [part([], a=int), part([], b=str)])
    assert merge_files(files, tmp_path / "all.pq", final=True) == 0
    assert set(pq.read_schema(tmp_path / "all.pq").names) == {"sort_index", "a", "b"}


def test_categories_that_differ(tmp_path: Path) -> None:
    tables = [
        part([0]).append_column("c", pa.array(["a"]).dictionary_encode()),
        part([1]).append_column(
            "c", pa.array([f"k{i}" for i in range(300)])[7:8].dictionary_encode()
        ),
        part([2]).append_column("c", pa.array(["plain"])),
    ]
    merge_files(write(tmp_path, tables), tmp_path / "all.pq", final=True)
    assert pq.read_table(tmp_path / "all.pq").column("c").to_pylist() == ["a", "k7", "plain"]


def merge_in_a_process(files: list[Path], target: Path, before: str = "") -> list[int]:
    """Merge in a fresh process; return the rows and the most MB that Arrow held."""
    code = f"""
        import resource
        from pathlib import Path
        from scythe.tables.merge import merge_files
        import pyarrow.parquet
        {before}
        files = [Path(name) for name in {[str(file) for file in files]!r}]
        rows = merge_files(files, Path({str(target)!r}), final=True)
        print(rows, pyarrow.default_memory_pool().max_memory() // 2**20)
    """
    return in_a_process(code)


def in_a_process(code: str) -> list[int]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_memory_is_bounded_by_batches_not_by_the_run(tmp_path: Path) -> None:
    count, width = 1_200_000, 200  # 240 MB in memory
    tables = [
        pa.table({ORDER: range(i, count, 4), "text": pa.repeat("x" * width, count // 4)})
        for i in range(4)
    ]
    files = write(tmp_path, tables)
    rows, megabytes = merge_in_a_process(files, tmp_path / "all.pq")
    assert rows == count
    assert megabytes < 120


def test_a_leaf_with_many_rows_is_not_in_memory_whole(tmp_path: Path) -> None:
    rows = 600_000  # of 120 MB in memory
    leaves = [
        pa.table({ORDER: np.full(rows, row), "text": pa.repeat("x" * 200, rows)}) for row in (0, 1)
    ]
    files = write(tmp_path, leaves)
    found, megabytes = merge_in_a_process(files, tmp_path / "all.pq")
    assert found == 2 * rows
    assert megabytes < 120


def test_a_node_reads_the_large_tables_of_its_leaves_some_rows_at_a_time(tmp_path: Path) -> None:
    rows, parts = 600_000, list[tuple[int, str]]()
    table = pa.table({"n": range(rows), "text": pa.repeat("x" * 200, rows)})
    for row in (0, 1):
        data = to_ipc(with_leaf_index(table, {"sort_index": row, "x": row / 2}))
        (tmp_path / f"{row}.arrow").write_bytes(data)
        parts.append((row, str(tmp_path / f"{row}.arrow")))
    code = f"""
        from pathlib import Path
        import pyarrow
        from scythe.tables.gather import LeafTables
        from scythe.tables.merge import write_merged
        tables = LeafTables([(row, Path(name)) for row, name in {parts!r}])
        print(write_merged(tables, Path({str(tmp_path / "all.pq")!r}), final=True))
        print(pyarrow.default_memory_pool().max_memory() // 2**20)
    """
    found, megabytes = in_a_process(code)
    assert found == 2 * rows
    assert megabytes < 120
    frame = pd.read_parquet(tmp_path / "all.pq", columns=["n"])
    assert frame["n"].tolist() == [*range(rows), *range(rows)]
    assert frame.index.get_level_values("x").unique().tolist() == [0.0, 0.5]


def test_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    files = write(tmp_path, [part([i, 900 - i], a=int) for i in range(450)])
    limit = "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))"
    assert merge_in_a_process(files, tmp_path / "all.pq", limit)[0] == 900
    found = pq.read_table(tmp_path / "all.pq").column("a").to_pylist()
    assert found == sorted([*range(450), *range(451, 901)])
    assert sorted(tmp_path.iterdir()) == sorted([*files, tmp_path / "all.pq"])
