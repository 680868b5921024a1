"""Store what a leaf returns: its files, and what is too large to travel with the result."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic_core import to_json

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import OutputError, ResultFileRefsInDataframesError, ScalarInDataframesError
from scythe.leaf.meter import LeafMeter
from scythe.outcomes import LeafResult, StoreConfig
from scythe.storage.layout import RunLayout, check_table_name
from scythe.storage.store import open_store

_NO_SCALARS = {"dataframes"}
_PLAIN: tuple[Any, ...] = (int, float, str, bool)


class LeafOutput:
    """Makes the results of leaves from what their functions return.

    Args:
        experiment_id: The run.
        store: Its bucket.
        inline_bytes: Size of tables, and of scalars, from which on they go to the bucket.
    """

    def __init__(self, experiment_id: str, store: StoreConfig, inline_bytes: int) -> None:
        self._experiment_id, self._store, self._inline = experiment_id, store, inline_bytes

    def result(
        self,
        leaf_id: str,
        spec: ExperimentInputSpec,
        output: ExperimentOutputSpec,
        meter: LeafMeter,
    ) -> LeafResult:
        """Store what must be stored, and return the rest.

        Raises:
            OutputError: A file or a table of the output cannot be stored.
            StorageError: The bucket does not take it.
        """
        files: dict[str, str] = {}
        plain = _is_plain(type(output))
        if not plain and output.file_reference_fields():
            files = self._store_files(spec, output)
            remote = output.remote_artifact_file_paths
            output = output.replace_files(files)
            files = {name: str(uri) for name, uri in remote.items()} | files
        tables = self._tables(leaf_id, spec, output) if output.dataframes else {}
        scalars, scalars_key = _scalars(output, plain=plain), None
        if len(scalars) > self._inline:
            scalars_key = self._layout.leaf_scalars(leaf_id)
            open_store(self._store).put_bytes(scalars_key, scalars.encode())
            scalars = "{}"
        return LeafResult(scalars, files, tables, meter.stats(), scalars_key)

    @property
    def _layout(self) -> RunLayout:
        return RunLayout(self._store.prefix, self._experiment_id)

    def _store_files(
        self, spec: ExperimentInputSpec, output: ExperimentOutputSpec
    ) -> dict[str, str]:
        """Upload the local files of an output and return their URIs by field."""
        uris: dict[str, str] = {}
        for name, path in output.local_artifact_file_paths.items():
            if not path.is_file():
                what = "is a folder: pack it into one file" if path.is_dir() else "is not there"
                raise OutputError(
                    f"Output file {name}={str(path)!r} {what}. Write it before the function "
                    "returns."
                )
            key = RunLayout.below_prefix(self._store.prefix, spec.construct_output_key(name, path))
            uris[name] = open_store(self._store).put_file(key, path)
        return uris

    def _tables(
        self, leaf_id: str, spec: ExperimentInputSpec, output: ExperimentOutputSpec
    ) -> dict[str, bytes | str]:
        """Turn the user's tables into Arrow, and store what is too large to travel."""
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
            data = to_ipc(with_leaf_index(storable(name, table), index))
            if len(data) <= room:
                room -= len(data)
                tables[name] = data
            else:
                key = self._layout.leaf_table(leaf_id, name)
                open_store(self._store).put_bytes(key, data)
                tables[name] = key
        return tables


def _scalars(output: ExperimentOutputSpec, *, plain: bool) -> str:
    """Return the scalar outputs as JSON."""
    try:
        if plain:  # in one step, which takes a third of the time
            serializer = type(output).__pydantic_serializer__
            return serializer.to_json(output, exclude=_NO_SCALARS).decode()
        return to_json(output.scalar_fields, inf_nan_mode="constants").decode()
    except ValueError:  # half of a surrogate pair in a text
        return json.dumps(output.scalar_fields)


@cache
def _is_plain(cls: type[ExperimentOutputSpec]) -> bool:
    """Return whether all outputs are plain numbers and texts, beside the tables."""
    fields = {name: one for name, one in cls.model_fields.items() if name not in _NO_SCALARS}
    return (
        all(one.annotation in _PLAIN for one in fields.values())
        and cls.model_config.get("extra") != "allow"
        and cls.model_config.get("ser_json_inf_nan") == "constants"
        and not cls.model_computed_fields
        and cls.scalar_fields is ExperimentOutputSpec.scalar_fields
    )
