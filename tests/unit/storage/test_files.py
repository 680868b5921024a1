"""File references, and URIs that lead back to their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import pytest
from pydantic import BaseModel, Field, FilePath, FileUrl, HttpUrl, ValidationError

from scythe.base import ExperimentOutputSpec
from scythe.storage.files import (
    FileReference,
    FileReferenceMixin,
    OptionalFileReference,
    S3Url,
    join_s3_uri,
    split_s3_uri,
)


@pytest.mark.parametrize(
    "key",
    [
        *[
            "a/b.csv",
            "mit leer/zeichen.csv",
            "a#b?c=d&e.txt",
            "100%.txt",
            "a%20b",
            "%",
            "é/中😀.epw",
        ],
        *[
            " x ",
            "a\tb\nc",
            "a+b;c",
            "[x]{y}",
            "q\"'`",
            "a\\b",
            "a//b",
            "a:b@c",
            "~x",
            "trailing/ ",
        ],
    ],
    ids=repr,
)
def test_a_uri_leads_back_to_its_key(key: str) -> None:
    uri = join_s3_uri("my-bucket", key)
    assert split_s3_uri(uri) == ("my-bucket", key)
    once = S3Url(uri)  # what a spec or a manifest holds
    assert split_s3_uri(str(once)) == ("my-bucket", key)
    assert split_s3_uri(str(S3Url(str(once)))) == ("my-bucket", key)


def test_s3_urls() -> None:
    assert split_s3_uri("s3://b") == ("b", "")
    with pytest.raises(ValidationError):
        S3Url("https://b/k")
    with pytest.raises(ValidationError):
        S3Url("s3:///k")


class Files(FileReferenceMixin):
    plain: FileReference
    optional: OptionalFileReference = None
    union: FileReference | None = None
    old_style: Optional[FileReference] = None  # noqa: UP045 - as scripts of scythe-engine have it
    described: FileReference = Field(default=Path("d"), description="with a description")
    annotated: Annotated[FileReference, Field(description="x")] = Path("a")
    no_path: S3Url | HttpUrl | None = None
    only_path: Path = Path("p")
    only_file: FilePath | None = None
    text: str = ""


def test_which_fields_are_file_references() -> None:
    expected = ("plain", "optional", "union", "old_style", "described", "annotated")
    assert Files.file_reference_fields() == expected

    class More(Files):
        further: FileReference

    assert More.file_reference_fields() == (*expected, "further")
    assert ExperimentOutputSpec.file_reference_fields() == ()


def test_local_and_remote_files() -> None:
    files = Files.model_validate(
        {
            "plain": "/tmp/a",
            "optional": "s3://b/k",
            "union": "https://example.org/x",
            "described": "rel/d",
        }
    )
    assert files.local_artifact_file_paths == {
        "plain": Path("/tmp/a"),
        "described": Path("rel/d"),
        "annotated": Path("a"),
    }
    assert {name: str(url) for name, url in files.remote_artifact_file_paths.items()} == {
        "optional": "s3://b/k",
        "union": "https://example.org/x",
    }


def test_a_file_uri_is_remote() -> None:
    files = Files.model_validate({"plain": "file:///tmp/a%20b"})
    assert list(files.remote_artifact_file_paths) == ["plain"]


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("s3://b/a%20b", S3Url),
        ("https://example.org/x", HttpUrl),
        ("file:///tmp/x", FileUrl),
        ("/tmp/x", Path),
        ("a b/c", Path),
    ],
)
def test_a_reference_is_the_same_from_python_and_from_json(given: str, kind: type) -> None:
    from_python = Files(plain=given)  # pyright: ignore[reportArgumentType]
    from_json = Files.model_validate_json(from_python.model_dump_json())
    assert type(from_python.plain) is type(from_json.plain) or kind is Path
    assert isinstance(from_json.plain, kind)
    assert from_json == from_python


def test_replacing_files_makes_a_copy() -> None:
    files = Files(plain=Path("/tmp/a"))
    other = files.replace_files({"plain": Path("/tmp/b")})
    assert (files.plain, other.plain) == (Path("/tmp/a"), Path("/tmp/b"))


def test_a_model_without_references() -> None:
    class Plain(FileReferenceMixin, BaseModel):
        x: int

    assert Plain(x=1).local_artifact_file_paths == {}
