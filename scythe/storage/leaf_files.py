"""Downloads the input files of a leaf, and uploads its output files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

from pydantic import AnyUrl, BaseModel
from pydantic_core import from_json

from scythe.errors import OutputError
from scythe.storage.file_values import FilePlace, file_ending, replace_files
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store
from scythe.storage.uris import S3Url, shown_uri

_TABLES = "dataframes"  # the field of an output whose values are no files


def fetch_inputs(
    spec: BaseModel, fetch: Callable[[AnyUrl], Path], folder: Path | None
) -> dict[str, Any]:
    """Return the file fields of a spec with local paths in place of URIs.

    Args:
        spec: The spec.
        fetch: Downloads a file and returns its path.
        folder: The folder to copy each file to; None to use it in the cache.
    """
    taken: set[Path] = set()

    def place_file(place: FilePlace, file: Any) -> Path:
        path = file if isinstance(file, Path) else fetch(file)
        if folder is None:
            return path
        target = folder / f"{place.field}{place.suffix}{file_ending(path)}"
        while target in taken:  # keys of two types that read alike, such as 1 and "1"
            target = target.with_name(f"_{target.name}")
        taken.add(target)
        shutil.copyfile(path, target)
        return target

    return replace_files(spec, place_file, any_path=False)


class OutputFiles:
    """Uploads the files that an output names, wherever in it they are.

    Args:
        store: The bucket.
        key_of: Returns the key, below the bucket's prefix, for a field and its file.
        tempdir: The leaf's folder, which is removed; None where it has none.

    Attributes:
        uris: What `result_file_refs` has for each field: the URI of its file, a list of URIs, or a
            dict of them.
    """

    def __init__(
        self, store: Store, key_of: Callable[[str, Path], str], tempdir: Path | None
    ) -> None:
        self.uris: dict[str, Any] = {}
        self._store = store
        self._key_of = key_of
        self._tempdir = tempdir
        self._taken: set[str] = set()

    def upload(self, output: BaseModel) -> dict[str, Any]:
        """Upload the files, and return the new values of the output's file fields.

        Raises:
            OutputError: A file does not exist, or is not a regular file.
            StorageError: The bucket refuses a file.
        """
        return replace_files(output, self._replaced, any_path=True, skip=_TABLES)

    def _replaced(self, place: FilePlace, file: Any) -> Any:
        uri = file
        if isinstance(file, Path):
            if not file.is_file():
                if place.is_declared or self._is_in_tempdir(file):
                    raise OutputError(_describe_missing(place, file))
                return file  # a path that is only a value, as in scythe-engine
            uri = S3Url(self._store.put_file(self._key(place, file), file))
        self._note(place, shown_uri(uri))
        return uri

    def _key(self, place: FilePlace, path: Path) -> str:
        key = self._key_of(place.field, path)
        ending = file_ending(path) if key.endswith(path.suffix) else PurePosixPath(key).suffix
        stem = key.removesuffix(path.suffix).removesuffix(ending) + place.suffix
        while f"{stem}{ending}" in self._taken:  # keys of two types that read alike, as above
            stem += "_"
        self._taken.add(f"{stem}{ending}")
        return RunLayout.below_prefix(self._store.config.prefix, f"{stem}{ending}")

    def _note(self, place: FilePlace, uri: str) -> None:
        if not place.keys:
            self.uris[place.field] = uri
        elif place.has_names:
            uris = self.uris.setdefault(place.field, {})
            name = "-".join(map(str, place.keys))
            while name in uris:
                name += "_"
            uris[name] = uri
        else:
            self.uris.setdefault(place.field, []).append(uri)

    def _is_in_tempdir(self, path: Path) -> bool:
        if self._tempdir is None:
            return False
        folders = (self._tempdir, self._tempdir.resolve())
        paths = (Path(os.path.abspath(path)), path.resolve())  # noqa: PTH100 - links stay
        return any(one.is_relative_to(folder) for one in paths for folder in folders)


def _describe_missing(place: FilePlace, path: Path) -> str:
    if path.is_dir():
        what = "is a folder: pack it into one file"
    else:
        what = "is no regular file" if path.exists() else "is not there"
    return f"Output file {place}={str(path)!r} {what}. Write it before the function returns."


def check_no_path_left(scalars: str, tempdir: Path) -> None:
    """Raise if a scalar output names a file in the leaf's folder, which is removed.

    Args:
        scalars: The scalar outputs as JSON.
        tempdir: The leaf's folder.

    Raises:
        OutputError: The text of a field is the path of a file, or folder, that is there.
    """
    folder = str(tempdir)
    if folder not in scalars and json.dumps(folder)[1:-1] not in scalars:
        return
    try:
        values: Any = from_json(scalars)
    except ValueError:  # half of a surrogate pair
        values = json.loads(scalars)
    for where, text in _texts(values, ""):
        if text.startswith(f"{folder}/") and os.path.exists(text):  # noqa: PTH110 - of any length
            raise OutputError(
                f"Output {where.lstrip('.')}={text!r} is a path in the leaf's folder, which is "
                "removed: declare the field as FileReference, and give the path as a Path."
            )


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, one in cast("dict[str, Any]", value).items():
            yield from _texts(key, where)
            yield from _texts(one, f"{where}.{key}")
    elif isinstance(value, list):
        for number, one in enumerate(cast("list[Any]", value)):
            yield from _texts(one, f"{where}[{number}]")
