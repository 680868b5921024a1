"""The models that users inherit from: what goes into a leaf and what comes out."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import AnyUrl, ConfigDict, Field, field_serializer, field_validator
from pydantic.json_schema import SkipJsonSchema

from scythe.errors import (
    ExperimentIndexAdditionalDataDoesNotMatchNRowsError,
    ExperimentIndexAdditionalDataOverlapsWithSpecError,
    ExperimentIndexNotSerializableError,
    ResultFileRefsInDataframesError,
    ScalarInDataframesError,
)
from scythe.settings import ScytheStorageSettings
from scythe.storage.fetch import cached_path, fetch_uri
from scythe.storage.file_values import fields_of_files
from scythe.storage.files import FileReferenceMixin
from scythe.tables.levels import LEVEL_TYPES, dump_all_levels, dump_levels, scalars_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BaseSpec",
    "ComputedFeatureValue",
    "ExperimentIndexAdditionalDataDoesNotMatchNRowsError",
    "ExperimentIndexAdditionalDataOverlapsWithSpecError",
    "ExperimentIndexNotSerializableError",
    "ExperimentInputSpec",
    "ExperimentOutputSpec",
    "ResultFileRefsInDataframesError",
    "ScalarInDataframesError",
]

logger = logging.getLogger("scythe.leaf")

ComputedFeatureValue = int | float | str

_NO_LEVELS = {"storage_settings"}
# Beside the fields, as a cached property would be: a private attribute costs each spec as much as
# two fields.
_ORIGINAL = "original spec"


class BaseSpec(FileReferenceMixin):
    """A spec that belongs to an experiment.

    NaN, infinities and bytes survive the way to the leaf and back.
    """

    model_config = ConfigDict(
        extra="allow",
        arbitrary_types_allowed=True,
        ser_json_inf_nan="constants",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    experiment_id: str = Field(..., description="The experiment_id of the spec")

    def local_path(self, pth: AnyUrl) -> Path:
        """Return where the file behind a URI is kept on this machine.

        The path is in the user's cache folder, and scoped to the experiment's id.

        Args:
            pth: The URI of the file.
        """
        return cached_path(pth, self.experiment_id)

    def fetch_uri(self, uri: AnyUrl | str, use_cache: bool = True) -> Path:
        """Fetch a file (`s3`, `http`, `https`, `file`) and return its local path.

        Args:
            uri: The URI to fetch.
            use_cache: Whether a copy that was fetched before will do.

        Raises:
            FetchError: The file cannot be fetched.
        """
        return fetch_uri(uri, cached_path(uri, self.experiment_id), use_cache)

    def log(self, msg: str, level: int = logging.INFO) -> None:
        """Write a message to the worker's log, with the id of the experiment."""
        logger.log(level, "[%s] %s", self.experiment_id, msg)


class ExperimentInputSpec(BaseSpec):
    """The inputs of one leaf. Inherit and add fields."""

    experiment_id: str = Field(
        default="placeholder", description="The experiment_id of the spec, given by `allocate`"
    )
    sort_index: int = Field(
        default=0, description="The sort index of the leaf, given by `allocate`.", ge=0
    )
    workflow_run_id: str | None = Field(
        default=None, description="The workflow run id of the leaf."
    )
    root_workflow_run_id: str | None = Field(
        default=None, description="The root workflow run id of the leaf."
    )
    storage_settings: ScytheStorageSettings | None = Field(
        default=None, description="The storage settings to use."
    )

    @property
    def computed_features(self) -> dict[str, ComputedFeatureValue]:
        """Scalars that become further levels of the index of all result tables.

        Override it in a subclass. The keys must not be names of fields.
        """
        return {}

    @property
    def prefix(self) -> str:
        """The key below which everything of the run is stored."""
        if self.storage_settings is None:
            msg = "`storage_settings` is not set, so we can't construct a scoped key"
            raise ValueError(msg)
        return f"{self.storage_settings.BUCKET_PREFIX}/{self.experiment_id}"

    @property
    def original_spec(self) -> Self:
        """The spec with the URIs of its files, where this one has local paths."""
        return vars(self).get(_ORIGINAL, self)

    def with_local_files(self, files: dict[str, Path]) -> Self:
        """Return a copy whose file fields are local paths; its index keeps the URIs."""
        copy = self.replace_files(files)
        vars(copy)[_ORIGINAL] = self.original_spec
        return copy

    def index_data(self, additional_excludes: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the levels of the index that are scalars, by name, with the computed features.

        Raises:
            ExperimentIndexAdditionalDataOverlapsWithSpecError: A computed feature has the name of
                a field.
        """
        spec = self.original_spec
        excluded = {*_NO_LEVELS, *additional_excludes} if additional_excludes else _NO_LEVELS
        dumped = dump_levels(spec, excluded)
        data = scalars_of(dumped)
        features = self.computed_features
        if not features:
            return data
        overlapping = [key for key in features if key in dumped]
        if overlapping:
            raise ExperimentIndexAdditionalDataOverlapsWithSpecError(overlapping)
        return {**data, **features}

    def make_multiindex(
        self,
        additional_index_data: dict[str, Any] | list[dict[str, Any]] | None = None,
        n_rows: int = 1,
        include_sort_subindex: bool = True,
        additional_excludes: frozenset[str] = frozenset(),
    ) -> pd.MultiIndex:
        """Make the index of a result table of this leaf.

        Index data are inputs or features, not outputs.

        Args:
            additional_index_data: Further levels: one dict for all rows, or one for each row.
            n_rows: Number of rows of the table.
            include_sort_subindex: Whether rows of one leaf get the level `sort_subindex`.
            additional_excludes: Fields to leave out.

        Returns:
            An index of `n_rows` rows with one level for each scalar field.

        Raises:
            ExperimentIndexAdditionalDataDoesNotMatchNRowsError: The list has another length.
            ExperimentIndexAdditionalDataOverlapsWithSpecError: A key has the name of a field.
            ExperimentIndexNotSerializableError: A value cannot be written as JSON.
        """
        import pandas as pd

        if isinstance(additional_index_data, list) and n_rows != len(additional_index_data):
            raise ExperimentIndexAdditionalDataDoesNotMatchNRowsError(n_rows, additional_index_data)
        base = self.index_data(additional_excludes)
        if isinstance(additional_index_data, list):
            extras = additional_index_data
        else:
            extras = [additional_index_data or {}] * n_rows
        for extra in extras:
            overlapping = [key for key in extra if key in base]
            if overlapping:
                raise ExperimentIndexAdditionalDataOverlapsWithSpecError(overlapping)
        rows = [{**base, **extra} for extra in extras]
        try:
            json.dumps(rows)
        except (TypeError, ValueError) as error:
            raise ExperimentIndexNotSerializableError(type(self)) from error
        frame = pd.DataFrame(rows)
        if include_sort_subindex and n_rows > 1:
            frame["sort_subindex"] = list(range(n_rows))
        return pd.MultiIndex.from_frame(frame)

    def construct_output_key(self, field_name: str, fpath: Path) -> str:
        """Return the key, below the bucket's prefix, of an output file of this leaf."""
        file_name = f"{self.workflow_run_id or f'{self.sort_index:08d}'}{fpath.suffix}"
        return f"{self.experiment_id}/results/{field_name}/{file_name}"


SpecT = TypeVar("SpecT", bound=ExperimentInputSpec)
_new = object.__new__
_write = object.__setattr__


def copy_for_run(spec: SpecT, update: dict[str, Any]) -> SpecT:
    """Return a copy with these values, at a quarter of the time that `model_copy` takes.

    What is not a field is shared with the spec: the copy is only written, not changed.
    """
    copy = _new(type(spec))
    values = {**vars(spec), **update}
    values.pop(_ORIGINAL, None)  # its index would be that of another run
    _write(copy, "__dict__", values)
    _write(copy, "__pydantic_fields_set__", spec.__pydantic_fields_set__)
    _write(copy, "__pydantic_extra__", spec.__pydantic_extra__)
    _write(copy, "__pydantic_private__", spec.__pydantic_private__)
    return copy


def index_rows(specs: Sequence[ExperimentInputSpec]) -> list[dict[str, Any]]:
    """Return the `index_data` of each spec; that of one class without features takes less time.

    Args:
        specs: Copies made by `copy_for_run`.

    Raises:
        ExperimentIndexAdditionalDataOverlapsWithSpecError: See `index_data`.
    """
    classes = set(map(type, specs))
    if len(classes) != 1 or any(map(_has_own_index, classes)):
        return [spec.index_data() for spec in specs]
    rows = dump_all_levels(specs, _NO_LEVELS)
    kinds = set(map(type, chain.from_iterable(row.values() for row in rows)))
    return rows if kinds <= LEVEL_TYPES else list(map(scalars_of, rows))


def _has_own_index(cls: type[ExperimentInputSpec]) -> bool:
    base = ExperimentInputSpec
    return not (
        cls.computed_features is base.computed_features and cls.index_data is base.index_data
    )


class ExperimentOutputSpec(FileReferenceMixin):
    """The outputs of one leaf. Inherit and add fields.

    Scalar fields become columns of `scalars.pq`, file fields are uploaded and listed in
    `result_file_refs.pq`, and each table in `dataframes` becomes `<name>.pq`.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        ser_json_inf_nan="constants",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    dataframes: SkipJsonSchema[dict[str, Any]] = Field(default_factory=dict)

    @field_validator("dataframes", mode="before")
    @classmethod
    def _check_dataframes(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: _as_table(name, table) for name, table in value.items()}

    @field_serializer("dataframes", when_used="json")
    def _serialize_dataframes(self, value: dict[str, Any]) -> dict[str, Any]:
        from scythe.tables.arrow import to_ipc
        from scythe.tables.user_tables import to_arrow

        return {
            name: {"arrow_ipc": base64.b64encode(to_ipc(to_arrow(table))).decode()}
            for name, table in value.items()
        }

    @property
    def scalar_fields(self) -> dict[str, Any]:
        """The outputs that are neither tables nor files, as JSON would hold them."""
        excluded = {"dataframes", *fields_of_files(type(self))}
        # A path in a nested model was replaced by the URI of the file that was uploaded.
        return self.model_dump(mode="json", exclude=excluded, warnings=False)


def _as_table(name: str, value: Any) -> Any:
    """Return a table as it was given, or made from one of the forms in which one is sent."""
    from scythe.tables.arrow import from_ipc
    from scythe.tables.user_tables import is_table, not_a_table

    if is_table(value):
        return value
    if isinstance(value, dict) and set(value) == {"arrow_ipc"}:
        return from_ipc(base64.b64decode(value["arrow_ipc"]))
    if isinstance(value, dict) and {"index", "columns", "data"} <= set(value):
        import pandas as pd

        return pd.DataFrame.from_dict(value, orient="tight")
    raise not_a_table(name, value)
