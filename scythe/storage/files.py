"""File references: fields that name a local file, an object in S3, or a file on the web."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AnyUrl, BaseModel, Field, FilePath, FileUrl, HttpUrl

from scythe.storage.file_values import Visit, is_reference, kinds_of, replace_files
from scythe.storage.uris import S3Url, join_s3_uri, split_s3_uri

__all__ = [
    "FileReference",
    "FileReferenceMixin",
    "OptionalFileReference",
    "S3Url",
    "join_s3_uri",
    "split_s3_uri",
]

# From left to right: in JSON, pydantic would else rather take a URI for a path.
_IN_ORDER = Field(union_mode="left_to_right")
FileReference = Annotated[S3Url | HttpUrl | FileUrl | Path | FilePath, _IN_ORDER]
OptionalFileReference = Annotated[S3Url | HttpUrl | FileUrl | Path | FilePath | None, _IN_ORDER]


@cache
def _reference_fields(cls: type[BaseModel]) -> tuple[str, ...]:
    fields = cls.model_fields.items()
    return tuple(name for name, field in fields if is_reference(kinds_of(field.annotation)))


class FileReferenceMixin(BaseModel):
    """A model some of whose fields are file references."""

    @classmethod
    def file_reference_fields(cls) -> tuple[str, ...]:
        """Return the names of the fields that are file references."""
        return _reference_fields(cls)

    @property
    def local_artifact_file_paths(self) -> dict[str, Path]:
        """The file references that are local paths, by field."""
        values = {name: getattr(self, name) for name in self.file_reference_fields()}
        return {name: value for name, value in values.items() if isinstance(value, Path)}

    @property
    def remote_artifact_file_paths(self) -> dict[str, AnyUrl]:
        """The file references that are URLs, by field."""
        values = {name: getattr(self, name) for name in self.file_reference_fields()}
        return {
            name: value
            for name, value in values.items()
            if value is not None and not isinstance(value, Path)
        }

    def map_files(self, visit: Visit) -> dict[str, Any]:
        """Return new values for the fields that hold file references, in lists and models too.

        Args:
            visit: Called with the place of each reference and its path or URL; returns what takes
                its place.
        """
        return replace_files(self, visit, any_path=False)

    def replace_files(self, files: dict[str, Any]) -> Self:
        """Return a copy with these file fields replaced; the model itself is not changed."""
        return self.model_copy(update=files)
