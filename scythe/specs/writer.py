"""Check the specs of a run chunk by chunk, and write them as one sorted Parquet file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from scythe.base import ExperimentInputSpec, copy_for_run, index_rows
from scythe.errors import ExperimentSpecsMismatchError, SpecError
from scythe.specs.codec import describe_validation_error, encode_specs
from scythe.specs.file import specs_table
from scythe.specs.sameness import get_extras
from scythe.specs.tags import DECIMAL_BITS
from scythe.storage.artifacts import InputArtifacts
from scythe.storage.file_values import FilePlace, has_files
from scythe.storage.files import S3Url
from scythe.storage.layout import RunLayout, check_path
from scythe.storage.store import Store
from scythe.tables.arrow import parquet_options
from scythe.tables.merge import merge_files
from scythe.tables.names import SORT_INDEX

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

CHUNK = 10_000  # rows in memory, and of a row group
PIECE = 50  # specs in memory as objects; Python's garbage collector looks after 700 new objects
_SORT_INDEX = attrgetter(SORT_INDEX)


@dataclass(frozen=True, slots=True)
class SpecRules:
    """The treatment of specs when a run is allocated.

    Attributes:
        cls: The class of specs.
        plain: Whether the leaf is a Hatchet task of the user's, which takes plain JSON.
        overwrite_sort_index: Whether they are numbered in the order given.
        overwrite_experiment_id: Whether they get the id of the run.
        strict: Whether fields that their class does not have are refused.
    """

    cls: type[BaseModel]
    plain: bool
    overwrite_sort_index: bool
    overwrite_experiment_id: bool
    strict: bool = False


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

    Attributes:
        artifacts: The local files that the specs name.
        unknown_fields: The fields that the class does not have, and how many specs have each.
    """

    def __init__(self, rules: SpecRules, layout: RunLayout, store: Store) -> None:
        self.artifacts = InputArtifacts(layout)
        self.unknown_fields = Counter[str]()
        self._known_fields = list(rules.cls.model_fields)
        self._warns = not _declares_extras(rules.cls)
        self._rules = rules
        self._store = store
        self._experiment_id = layout.experiment_id
        self._count = 0

    def chunk(self, given: Iterable[Any]) -> Chunk | None:
        """Check the next specs; None when there are none.

        Raises:
            SpecError: One is wrong: the message names its number and field.
        """
        first: ExperimentInputSpec | None = None  # the others are not kept: memory for nothing
        texts = list[str]()
        rows = list[dict[str, Any]]()
        source = iter(given)
        while piece := list(islice(source, PIECE)):
            start, self._count = self._count, self._count + len(piece)
            specs = [self._as_spec(number, spec) for number, spec in enumerate(piece, start)]
            if self._warns and any(map(get_extras, specs)):
                self._note_unknown_fields(start, specs)
            with_files = any(map(has_files, set(map(type, specs))))
            copies = [
                copy_for_run(spec, self._update(number, spec if with_files else None))
                for number, spec in enumerate(specs, start)
            ]
            more_texts, more_rows = self._encoded(start, copies)
            texts += more_texts
            rows += more_rows
            first = min([first, *copies] if first else copies, key=_SORT_INDEX)
        if first is None:
            return None
        try:
            table = specs_table(rows, texts)
        except ValueError as error:
            raise _refusal_of_row(rows, self._count - len(rows), error) from error
        return Chunk(first, table if self._rules.overwrite_sort_index else _sorted(table))

    def _as_spec(self, number: int, spec: Any) -> ExperimentInputSpec:
        expected = self._rules.cls
        if type(spec) is expected or (self._rules.plain and isinstance(spec, expected)):
            return cast("ExperimentInputSpec", spec)
        if isinstance(spec, expected):
            raise SpecError(
                f"Spec {number} is a {type(spec).__name__} and would arrive as a "
                f"{expected.__name__}, the class that the experiment takes: annotate the "
                f"experiment's parameter with {type(spec).__name__}, or make specs of "
                f"{expected.__name__}. Nothing was uploaded or started."
            )
        if not isinstance(spec, Mapping):
            raise ExperimentSpecsMismatchError(expected, type(spec), number)
        values = {"experiment_id": "placeholder", "sort_index": number, **spec}
        try:
            return cast("ExperimentInputSpec", expected.model_validate(values))
        except ValidationError as error:
            raise SpecError(f"Spec {number}: {describe_validation_error(error)}.") from error

    def _note_unknown_fields(self, start: int, specs: list[ExperimentInputSpec]) -> None:
        for number, spec in enumerate(specs, start):
            names = spec.model_extra or {}
            self.unknown_fields.update(list(names))
            if names and self._rules.strict:
                described = describe_unknown_field(next(iter(names)), self._known_fields)
                end = "" if described.endswith("?") else "."
                raise SpecError(f"Spec {number}: {described}{end} Nothing was uploaded or started.")

    def warn_of_unknown_fields(self) -> None:
        """Write one line to the log for each field that the class of the specs does not have."""
        for name, count in self.unknown_fields.items():
            where = f" in {count} spec{'s' if count > 1 else ''}"
            logger.warning("%s", describe_unknown_field(name, self._known_fields, where))

    def _update(self, number: int, with_files: ExperimentInputSpec | None) -> dict[str, Any]:
        """Return what a copy gets: the number and the id of the run, and the URIs of its files."""
        update: dict[str, Any] = {}
        if with_files is not None:

            def upload(place: FilePlace, file: Any) -> Any:
                if not isinstance(file, Path):
                    return file
                return S3Url(self._store.uri(self.artifacts.add(place.field, file, number)))

            update = with_files.map_files(upload)
        if self._rules.overwrite_sort_index:
            update["sort_index"] = number
        if self._rules.overwrite_experiment_id:
            update["experiment_id"] = self._experiment_id
        return update

    def _encoded(
        self, start: int, specs: list[ExperimentInputSpec]
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Return some specs as text, and their index; `start` is the number of the first."""
        try:
            if not self._rules.overwrite_sort_index:
                for spec in specs:
                    _check_sort_index(spec.sort_index)
            if not self._rules.overwrite_experiment_id:
                for spec in specs:
                    check_path("experiment_id", spec.experiment_id)
            texts = encode_specs(specs)
            if self._rules.plain:
                texts = [spec.model_dump_json(by_alias=True, round_trip=True) for spec in specs]
            return texts, index_rows(specs)
        except ValidationError as error:
            reason = describe_validation_error(error)
        except SpecError as error:
            reason = str(error).rstrip(".")
        if len(specs) > 1:  # which one is it?
            for number, spec in enumerate(specs, start):
                self._encoded(number, [spec])
        raise SpecError(f"Spec {start}: {reason}. Nothing was uploaded or started.")


def describe_unknown_field(name: str, known: Sequence[str], where: str = "") -> str:
    """Say that a class of specs has no such field, and which one may be meant.

    Args:
        name: The name.
        known: The names of the fields that it has.
        where: Words to add to the name.
    """
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown field {name!r}{where}{hint}"


def _declares_extras(cls: type[BaseModel]) -> bool:
    """Return whether a class annotates `__pydantic_extra__`, as one that means to take extras."""
    own = cls.__mro__[: cls.__mro__.index(BaseModel)]
    return any("__pydantic_extra__" in vars(one).get("__annotations__", {}) for one in own)


def _check_sort_index(value: int) -> None:
    if value >= 2**63:
        raise SpecError(f"Field 'sort_index' must be below 2**63, got {value}.")


def _refusal_of_row(
    rows: Sequence[Mapping[str, Any]], start: int, error: ValueError
) -> SpecError | ValueError:
    """Return the refusal of a number that is too long for a column, else the error itself."""
    for number, row in enumerate(rows, start):
        for name, value in row.items():
            if type(value) is int and value.bit_length() > DECIMAL_BITS:
                return SpecError(
                    f"Spec {number}: Field {name!r} is an integer of more than 4,000 digits, which "
                    "no table holds: give it as text. Nothing was uploaded or started."
                )
    return error


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
        merge_files(self._files, target, order=SORT_INDEX, final=True, group_rows=CHUNK)
        return target

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
