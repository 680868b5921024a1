"""The tables of a run for other tools: pandas, polars, lazy Arrow, files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.errors import MissingLibraryError, StorageError
from scythe.runs.reading import RunReader
from scythe.storage.store import arrow_filesystem, is_missing
from scythe.tables.arrow import know_types_of_pandas
from scythe.tables.formats import check_format, write_table
from scythe.tables.tidy import tidy_columns, tidy_table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as pads

_ROWS = 65_536  # that are in memory at one time
_SCALARS = "scalars"


class RunExports(RunReader):
    """Adds the tables in other forms to a class that reads a run."""

    def to_pandas(self, table: str = _SCALARS, tidy: bool = True, *, partial: bool = False) -> Any:
        """Read a table as a DataFrame of pandas.

        Args:
            table: Its name, see `results`.
            tidy: Whether the fields of the specs are columns; else they are the MultiIndex.
            partial: Whether the leaves that are over will do, while the run goes on.
        """
        found = self.results(table, partial=partial)
        return (tidy_table(found) if tidy else found).to_pandas()

    def to_polars(self, table: str = _SCALARS, *, partial: bool = False) -> Any:
        """Read a table as a DataFrame of polars, the fields of the specs as columns.

        Raises:
            MissingLibraryError: polars is not installed.
        """
        try:
            polars = import_module("polars")
        except ImportError:
            raise MissingLibraryError("polars", "to_polars()") from None
        return polars.from_arrow(tidy_table(self.results(table, partial=partial)))

    def dataset(self, table: str = _SCALARS) -> pads.Dataset:
        """Return a table as a lazy Arrow dataset, of which only what is asked for is read.

        Raises:
            ResultNotFoundError: The run has no such table (yet).
        """
        import pyarrow.dataset as pads

        key = self.layout.final_table(table)
        if table not in self._final_files():
            self.results(table)
        store = self.store()
        return pads.dataset(
            f"{store.bucket}/{key}", filesystem=arrow_filesystem(store.config), format="parquet"
        )

    def export(
        self,
        path: str | os.PathLike[str],
        table: str = _SCALARS,
        *,
        columns: Sequence[str] | None = None,
        partial: bool = False,
    ) -> int:
        """Write a table to a file, some rows at a time, the fields of the specs as columns.

        Args:
            path: The file, whose suffix is the format: `.parquet`, `.pq`, `.csv`, `.xlsx` (with
                openpyxl) or `.duckdb` (with duckdb).
            table: Its name, see `results`.
            columns: The columns to write, by default all but ids.
            partial: Whether the leaves that are over will do, while the run goes on.

        Returns:
            The number of rows.
        """
        target = Path(path)
        check_format(target)
        with self.stream(table, columns=columns, partial=partial) as reader:
            return write_table(reader, target, table)

    @contextmanager
    def stream(
        self, table: str = _SCALARS, *, columns: Sequence[str] | None = None, partial: bool = False
    ) -> Generator[pa.RecordBatchReader]:
        """Read a table some rows at a time, the fields of the specs as columns; see `export`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with tempfile.TemporaryDirectory(prefix="scythe-export-") as folder:
            file = Path(folder) / "table.pq"
            self._fetch_table(table, file, partial=partial)
            know_types_of_pandas(pq.read_schema(file))
            with pq.ParquetFile(file) as parquet:
                picked = tidy_columns(parquet.schema_arrow, columns)
                fields = [
                    parquet.schema_arrow.field(column).with_name(name)
                    for column, name in picked.items()
                ]
                schema = pa.schema(fields)

                def batches() -> Iterator[pa.RecordBatch]:
                    for batch in parquet.iter_batches(_ROWS, columns=[*picked]):
                        arrays = [batch.column(column) for column in picked]
                        yield pa.record_batch(arrays, schema=schema)

                yield pa.RecordBatchReader.from_batches(schema, batches())

    def _fetch_table(self, name: str, file: Path, *, partial: bool) -> None:
        import pyarrow.parquet as pq

        try:
            self.store().download(self.layout.final_table(name), file)
        except StorageError as error:
            if not is_missing(error.__cause__):
                raise
            pq.write_table(self.results(name, partial=partial), file)
