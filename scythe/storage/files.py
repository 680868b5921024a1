"""File references: fields that name a local file, an object in S3, or a file on the web."""

from __future__ import annotations

import types
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self, Union, get_args, get_origin
from urllib.parse import quote, unquote

from pydantic import AnyUrl, BaseModel, Field, FilePath, FileUrl, HttpUrl, UrlConstraints


class S3Url(AnyUrl):
    """A URL for an S3 object."""

    _constraints = UrlConstraints(allowed_schemes=["s3"], host_required=True)


_SAFE = "/!$&'()*+,;=:@"  # and letters, digits, `_.-~`: what a URL parser leaves as it is

# From left to right: in JSON, pydantic would else rather take a URI for a path.
_IN_ORDER = Field(union_mode="left_to_right")
FileReference = Annotated[S3Url | HttpUrl | FileUrl | Path | FilePath, _IN_ORDER]
OptionalFileReference = Annotated[S3Url | HttpUrl | FileUrl | Path | FilePath | None, _IN_ORDER]


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key; `%20` and alike in the key are resolved."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, unquote(key)


def join_s3_uri(bucket: str, key: str) -> str:
    """Return the URI of a key, such that `split_s3_uri` gives the key back."""
    return f"s3://{bucket}/{quote(key, safe=_SAFE)}"


def _members(annotation: Any) -> set[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return set().union(*(_members(arg) for arg in get_args(annotation)))
    return {annotation}


@cache
def _reference_fields(cls: type[BaseModel]) -> tuple[str, ...]:
    wanted = {S3Url, HttpUrl, Path}
    return tuple(
        name for name, field in cls.model_fields.items() if wanted <= _members(field.annotation)
    )


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

    def replace_files(self, files: dict[str, Any]) -> Self:
        """Return a copy with these file fields replaced; the model itself is not changed."""
        return self.model_copy(update=files)
