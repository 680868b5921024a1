"""Check the specs of a run chunk by chunk, and write them as one sorted Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from scythe.base import ExperimentInputSpec
from scythe.errors import ExperimentSpecsMismatchError, SpecError
from scythe.specs.codec import describe_validation_error, encode_spec
from scythe.specs.file import specs_table
from scythe.storage.artifacts import InputArtifacts
from scythe.storage.files import S3Url
from scythe.storage.layout import RunLayout, check_path
from scythe.storage.store import Store
from scythe.tables.arrow import SORT_INDEX, parquet_options
from scythe.tables.merge import merge_files

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CHUNK = 10_000  # specs in memory, and rows of a row group


@dataclass(frozen=True, slots=True)
class SpecRules:
    """What becomes of specs when a run is allocated.

    Attributes:
        cls: The class of specs.
        plain: Whether the leaf is a Hatchet task of the user's, which takes plain JSON.
        overwrite_sort_index: Whether they are numbered in the order given.
        overwrite_experiment_id: Whether they get the id of the run.
    """

    cls: type[BaseModel]
    plain: bool
    overwrite_sort_index: bool
    overwrite_experiment_id: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some specs, checked, in sort order.

    Attributes:
        first: The first of them.
        table: All of them, see `scythe.specs.file`.
    """

    first: ExperimentInputSpec
    table: pa.Table


class SpecChecker:
    """Checks specs for one run and turns them into tables. The specs are not changed.

    Args:
        rules: What becomes of them.
        layout: The run.
        store: Its bucket, for the URIs of input files.
    """

    def __init__(self, rules: SpecRules, layout: RunLayout, store: Store) -> None:
        self.artifacts = InputArtifacts(layout)
        self._rules, self._layout, self._store = rules, layout, store
        self._count = 0

    def chunk(self, given: Iterable[Any]) -> Chunk | None:
        """Check the next specs; None when there are none.

        Raises:
            SpecError: One is wrong: the message names its number and field.
        """
        first: ExperimentInputSpec | None = None  # the others are not kept: memory for nothing
        texts: list[str] = []
        rows: list[dict[str, Any]] = []
        for spec in given:
            number, self._count = self._count, self._count + 1
            copy = self._for_run(number, self._as_spec(number, spec))
            text, index = self._encoded(number, copy)
            texts.append(text)
            rows.append(index)
            if first is None or copy.sort_index < first.sort_index:
                first = copy
        if first is None:
            return None
        table = specs_table(rows, texts)
        return Chunk(first, table if self._rules.overwrite_sort_index else _sorted(table))

    def _as_spec(self, number: int, spec: Any) -> ExperimentInputSpec:
        expected = self._rules.cls
        if isinstance(spec, expected):
            return cast("ExperimentInputSpec", spec)
        if not isinstance(spec, Mapping):
            raise ExperimentSpecsMismatchError(expected, type(spec), number)
        values = {"experiment_id": "placeholder", "sort_index": number, **spec}
        try:
            return cast("ExperimentInputSpec", expected.model_validate(values))
        except ValidationError as error:
            raise SpecError(f"Spec {number}: {describe_validation_error(error)}.") from error

    def _for_run(self, number: int, spec: ExperimentInputSpec) -> ExperimentInputSpec:
        """Return a copy with the number and the id of the run, and the URIs of its files."""
        update: dict[str, Any] = {}
        if type(spec).file_reference_fields():
            update = {
                name: S3Url(self._store.uri(self.artifacts.add(name, path, number)))
                for name, path in spec.local_artifact_file_paths.items()
            }
        if self._rules.overwrite_sort_index:
            update["sort_index"] = number
        if self._rules.overwrite_experiment_id:
            update["experiment_id"] = self._layout.experiment_id
        return _copy_with(spec, update)

    def _encoded(self, number: int, spec: ExperimentInputSpec) -> tuple[str, dict[str, Any]]:
        try:
            if not self._rules.overwrite_experiment_id:
                check_path("experiment_id", spec.experiment_id)
            text = encode_spec(spec)
            if self._rules.plain:
                text = spec.model_dump_json(by_alias=True, round_trip=True)
            return text, spec.index_data()
        except ValidationError as error:
            reason = describe_validation_error(error)
        except SpecError as error:
            reason = str(error).rstrip(".")
        raise SpecError(f"Spec {number}: {reason}. Nothing was uploaded or started.")


def _copy_with(spec: ExperimentInputSpec, update: dict[str, Any]) -> ExperimentInputSpec:
    """Return a copy with these values, at a third of the time that `model_copy` takes.

    What is not a field is shared with the spec: the copy is only written, not changed.
    """
    copy, write = type(spec).__new__(type(spec)), object.__setattr__
    write(copy, "__dict__", {**vars(spec), **update})
    write(copy, "__pydantic_fields_set__", spec.__pydantic_fields_set__)
    write(copy, "__pydantic_extra__", spec.__pydantic_extra__)
    write(copy, "__pydantic_private__", spec.__pydantic_private__)
    return copy


def _sorted(table: pa.Table) -> pa.Table:
    """Sort a table by its sort index; rows with the same one stay in their order."""
    order = sorted(range(table.num_rows), key=table.column(SORT_INDEX).to_pylist().__getitem__)
    return table.take(order)


class SpecsWriter:
    """Writes chunks of specs as one Parquet file, sorted, with the columns of all chunks.

    Chunks are written as they come. Only where they differ in their columns, or are not in order,
    are they put together anew at the end; memory holds some rows of each then.

    Args:
        folder: Where it writes.
    """

    def __init__(self, folder: Path) -> None:
        self.n_specs = 0
        self._folder = folder
        self._files: list[Path] = []
        self._schema: pa.Schema | None = None
        self._last = -1
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Write a chunk, in itself in sort order."""
        import pyarrow.parquet as pq

        order = table.column(SORT_INDEX)
        ordered = order[0].as_py() >= self._last
        if self._writer is None or not ordered or not table.schema.equals(self._schema):
            self._close()
            self._files.append(self._folder / f"specs-{len(self._files)}.pq")
            self._schema = table.schema
            self._writer = pq.ParquetWriter(
                self._files[-1], table.schema, **parquet_options(table.schema)
            )
        self._writer.write_table(table, row_group_size=CHUNK)
        self._last = order[-1].as_py()
        self.n_specs += table.num_rows

    def finish(self) -> Path:
        """Return the file with all specs."""
        self._close()
        if len(self._files) == 1:
            return self._files[0]
        target = self._folder / "specs.pq"
        merge_files(self._files, target, order=SORT_INDEX, final=False, group_rows=CHUNK)
        return target

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def chunks_of(specs: Iterator[Any]) -> Iterator[list[Any]]:
    """Yield specs, some at a time."""
    while chunk := list(islice(specs, CHUNK)):
        yield chunk
