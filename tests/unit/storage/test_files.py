"""File references, and URIs that lead back to their keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, FilePath, FileUrl, HttpUrl, ValidationError
from typing_extensions import TypedDict

from scythe.base import ExperimentOutputSpec
from scythe.storage.file_values import FilePlace, escape_key, has_files, replace_files
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


# --- files inside of values --------------------------------------------------------------------


class Part(BaseModel):
    file: FileReference
    plain: Path = Path("p")
    inner: Part | None = None


@dataclass
class Sheet:
    file: FileReference
    name: str = ""


class Row(TypedDict):
    file: FileReference
    plain: Path


class Pair(NamedTuple):
    plain: Path
    file: FileReference


class Holder(FileReferenceMixin):
    listed: list[FileReference] = []
    fixed: tuple[FileReference, Path] | None = None
    named: dict[str, list[FileReference]] = {}
    mixed: FileReference | list[FileReference] | None = None
    part: Part | None = None
    sheets: list[Sheet] = []
    rows: list[Row] = []
    pair: Pair | None = None
    anything: Any = None
    paths: list[Path] = []


def places(holder: Holder, *, any_path: bool = False) -> list[str]:
    found: list[str] = []

    def note(place: FilePlace, file: Any) -> Any:
        found.append(f"{place}={file}")
        return file

    assert replace_files(holder, note, any_path=any_path) == {}
    return found


def test_references_inside_of_values_are_found_and_plain_paths_are_not() -> None:
    holder = Holder(
        listed=[Path("a"), Path("b")],
        fixed=(Path("c"), Path("no")),
        named={"x": [Path("d")]},
        mixed=[Path("e")],
        part=Part(file=Path("f"), inner=Part(file=Path("g"))),
        sheets=[Sheet(Path("h"))],
        rows=[{"file": Path("i"), "plain": Path("no")}],
        pair=Pair(Path("no"), Path("j")),
        anything=[Path("k")],
        paths=[Path("l")],
    )
    expected = [
        *["listed[0]=a", "listed[1]=b", "fixed[0]=c", "named['x'][0]=d", "mixed[0]=e"],
        *["part.file=f", "part.inner.file=g", "sheets[0].file=h", "rows[0]['file']=i", "pair[1]=j"],
    ]
    assert places(holder) == expected
    assert places(Holder(mixed=Path("m"))) == ["mixed=m"]
    everything = places(holder, any_path=True)
    assert set(expected) < set(everything)
    assert {"anything[0]=k", "paths[0]=l", "fixed[1]=no", "part.plain=p"} < set(everything)


def test_a_copy_has_the_new_files_and_the_old_types() -> None:
    holder = Holder(
        listed=[Path("a")],
        named={"x": [Path("d")], "y": []},
        part=Part(file=Path("f")),
        sheets=[Sheet(Path("h"), "s")],
        pair=Pair(Path("no"), Path("j")),
    )
    updates = holder.map_files(lambda place, file: S3Url(f"s3://b/{file}"))
    copy = holder.replace_files(updates)
    assert copy.named == {"x": [S3Url("s3://b/d")], "y": []}
    assert copy.pair == Pair(Path("no"), S3Url("s3://b/j"))
    assert copy.sheets == [Sheet(S3Url("s3://b/h"), "s")]
    assert copy.part == Part(file=S3Url("s3://b/f"))
    assert holder.part == Part(file=Path("f"))
    assert holder.sheets[0].file == Path("h")


def test_classes_without_files_are_not_looked_through() -> None:
    class Plain(FileReferenceMixin):
        values: list[float] = []
        deep: dict[str, list[int]] = {}

    assert not has_files(Plain, any_path=True)
    assert has_files(Holder)


@given(st.lists(st.text() | st.integers(), unique_by=lambda key: (type(key), key)))
def test_no_two_keys_share_a_name_and_none_leaves_its_folder(keys: list[Any]) -> None:
    names = [escape_key(key) for key in keys if isinstance(key, str)]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name.encode()) <= 100
        assert not set(name) & set("/\\\x00\n\x7f")
