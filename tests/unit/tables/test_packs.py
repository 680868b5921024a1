"""Several tables in one piece."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.tables.merge import join_packs
from scythe.tables.names import ORDER
from scythe.tables.packs import read_pack, write_pack
from scythe.tables.pandas_index import with_pandas_index


def indexed(orders: list[int], **columns: list[object]) -> pa.Table:
    table = pa.table({"sort_index": orders, **columns, ORDER: pa.array(orders, pa.int64())})
    return with_pandas_index(table, ["sort_index"])


def test_a_pack_holds_its_tables() -> None:
    tables = {
        "scalars": indexed([1, 2], y=["a", None]),
        "ü / x": pa.table({"z": pa.array([], "i4")}),
    }
    found = dict(read_pack(write_pack(tables)))
    assert found == tables
    assert [found[name].schema.metadata for name in tables] == [
        table.schema.metadata for table in tables.values()
    ]
    assert dict(read_pack(write_pack({}))) == {}


def test_packs_are_joined_in_their_order(tmp_path: Path) -> None:
    packs = [
        {"scalars": indexed([0, 1], y=[1, 2])},
        {"scalars": indexed([2], y=[0.5], more=["x"]), "extra": indexed([2, 2], a=[7, 8])},
        {"extra": indexed([3], a=[9])},
    ]
    files: list[Path] = []
    for number, tables in enumerate(packs):
        files.append(tmp_path / f"{number}.arrow")
        files[-1].write_bytes(write_pack(tables))
    found = join_packs(files, tmp_path, final=True)
    scalars = pd.read_parquet(found["scalars"])
    assert scalars.index.tolist() == [0, 1, 2]
    assert scalars["y"].tolist() == [1.0, 2.0, 0.5]
    assert scalars["more"].isna().tolist() == [True, True, False]
    assert pd.read_parquet(found["extra"])["a"].tolist() == [7, 8, 9]
    kept = join_packs(files, tmp_path, final=False)
    assert pq.read_table(kept["scalars"]).column(ORDER).to_pylist() == [0, 1, 2]


def test_many_small_packs_become_large_row_groups(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.arrow" for number in range(50)]
    for number, file in enumerate(files):
        orders = list(range(100 * number, 100 * number + 100))
        file.write_bytes(write_pack({"scalars": indexed(orders, y=list(orders))}))
    file = pq.ParquetFile(join_packs(files, tmp_path, final=True)["scalars"])
    assert (file.metadata.num_rows, file.num_row_groups) == (5000, 1)
    assert file.read().column("y").to_pylist() == list(range(5000))
