"""Stores the output of a leaf: its files, and what is too large for the message."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import AnyUrl
from pydantic_core import PydanticSerializationError, to_json

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import OutputError, ResultFileRefsInDataframesError, ScalarInDataframesError
from scythe.leaf.meter import LeafMeter
from scythe.outcomes import LeafResult, StoreConfig
from scythe.storage.file_values import has_files
from scythe.storage.layout import RunLayout, check_table_name
from scythe.storage.leaf_files import OutputFiles, check_no_path_left
from scythe.storage.store import open_store

_NO_SCALARS = {"dataframes"}
_PLAIN: tuple[Any, ...] = (int, float, str, bool)


class LeafOutput:
    """Makes the results of leaves from the return values of their functions.

    Args:
        experiment_id: The run.
        store: Its bucket.
        inline_bytes: Size above which tables, and scalars, go to the bucket.
    """

    def __init__(self, experiment_id: str, store: StoreConfig, inline_bytes: int) -> None:
        self._experiment_id = experiment_id
        self._store = store
        self._inline = inline_bytes

    def result(
        self,
        leaf_id: str,
        spec: ExperimentInputSpec,
        output: ExperimentOutputSpec,
        meter: LeafMeter,
        tempdir: Path | None = None,
    ) -> LeafResult:
        """Store files and large tables, and return the result.

        Args:
            leaf_id: Unique in its run; safe as a file name.
            spec: Its input.
            output: The return value of its function.
            meter: Measured the leaf.
            tempdir: Its folder, which is removed afterwards.

        Raises:
            OutputError: A file or a table of the output cannot be stored.
            StorageError: The bucket did not accept it.
        """
        files: dict[str, Any] = {}
        plain = _is_plain(type(output))
        if not plain and has_files(type(output), any_path=True, skip="dataframes"):
            uploads = OutputFiles(open_store(self._store), spec.construct_output_key, tempdir)
            output = output.replace_files(uploads.upload(output))
            files = uploads.uris
        tables = self._tables(leaf_id, spec, output, tempdir) if output.dataframes else {}
        scalars = _scalars(output, files, plain=plain)
        scalars_key = None
        if tempdir is not None:
            check_no_path_left(scalars, tempdir)
        if len(scalars) > self._inline:
            scalars_key = self._layout.leaf_scalars(leaf_id)
            open_store(self._store).put_bytes(scalars_key, scalars.encode())
            scalars = "{}"
        return LeafResult(scalars, files, tables, meter.stats(), scalars_key)

    @property
    def _layout(self) -> RunLayout:
        return RunLayout(self._store.prefix, self._experiment_id)

    def _tables(
        self,
        leaf_id: str,
        spec: ExperimentInputSpec,
        output: ExperimentOutputSpec,
        tempdir: Path | None,
    ) -> dict[str, bytes | str]:
        """Convert the user's tables to Arrow, and store those too large for the message."""
        if "scalars" in output.dataframes:
            raise ScalarInDataframesError(output.dataframes["scalars"])
        if "result_file_refs" in output.dataframes:
            raise ResultFileRefsInDataframesError(output.dataframes["result_file_refs"])
        from scythe.tables.arrow import to_ipc
        from scythe.tables.user_tables import storable, with_leaf_index

        index = spec.index_data()
        tables: dict[str, bytes | str] = {}
        room = self._inline
        for name, table in output.dataframes.items():
            check_table_name(name)
            made = storable(name, table)
            if tempdir is not None:
                _check_no_path_in_table(name, made, tempdir)
            data = to_ipc(with_leaf_index(made, index))
            if len(data) <= room:
                room -= len(data)
                tables[name] = data
            else:
                key = self._layout.leaf_table(leaf_id, name)
                open_store(self._store).put_bytes(key, data)
                tables[name] = key
        return tables


def _check_no_path_in_table(name: str, table: Any, tempdir: Path) -> None:
    """Raise if a text column names a file in the leaf's folder, which is removed."""
    import pyarrow.compute as pc

    for column in table.column_names:
        if str(table.schema.field(column).type) not in ("string", "large_string"):
            continue
        texts = table.column(column)
        paths = texts.filter(pc.call_function("starts_with", [texts], _below(tempdir)))
        for path in paths.slice(0, 1).to_pylist():
            check_no_path_left(json.dumps({f"dataframes[{name!r}][{column!r}]": path}), tempdir)


def _below(folder: Path) -> Any:
    import pyarrow.compute as pc

    return pc.MatchSubstringOptions(f"{folder}/")


def _scalars(output: ExperimentOutputSpec, files: dict[str, Any], *, plain: bool) -> str:
    """Return the scalar outputs as JSON, without file fields."""
    if plain:  # in one step, in a third of the time
        serializer = type(output).__pydantic_serializer__
        try:
            return serializer.to_json(output, exclude=_NO_SCALARS).decode()
        except ValueError:  # a lone surrogate in a text
            return json.dumps(output.scalar_fields)
    try:
        scalars = output.scalar_fields
    except PydanticSerializationError as error:
        raise _no_scalar(output, error) from error
    for name in files:
        if isinstance(getattr(output, name, None), AnyUrl):  # a plain path that was uploaded
            scalars.pop(name, None)
    try:
        return to_json(scalars, inf_nan_mode="constants").decode()
    except ValueError:
        return json.dumps(scalars)


def _no_scalar(output: ExperimentOutputSpec, error: PydanticSerializationError) -> OutputError:
    """Return the error for fields with values that JSON lacks."""
    values = {**vars(output), **(output.model_extra or {})}
    names = [repr(n) for n in values if n not in _NO_SCALARS and not _has_json(output, n)]
    return OutputError(
        f"Output {' and '.join(names)} cannot be stored: {error}. Convert it, for example numpy "
        "values with .item() or .tolist()."
    )


def _has_json(output: ExperimentOutputSpec, name: str) -> bool:
    try:
        output.model_dump(mode="json", include={name})
    except PydanticSerializationError:
        return False
    return True


@cache
def _is_plain(cls: type[ExperimentOutputSpec]) -> bool:
    """Return whether all outputs, apart from tables, are plain numbers and texts."""
    fields = {name: one for name, one in cls.model_fields.items() if name not in _NO_SCALARS}
    return (
        all(one.annotation in _PLAIN for one in fields.values())
        and cls.model_config.get("extra") != "allow"
        and cls.model_config.get("ser_json_inf_nan") == "constants"
        and not cls.model_computed_fields
        and cls.scalar_fields is ExperimentOutputSpec.scalar_fields
    )
