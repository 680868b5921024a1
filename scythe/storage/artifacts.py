"""Uploads the local input files of a run, each once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from scythe.errors import SpecError
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store

_UPLOADS = 8  # parallel uploads


@dataclass(slots=True)
class InputArtifacts:
    """The local files that the specs of a run name, by field, and the keys they will have.

    Two files with the same name from two folders get two keys; the second one is stored in a folder
    named after its path.
    """

    layout: RunLayout
    keys: dict[tuple[str, Path], str] = field(default_factory=dict[tuple[str, Path], str])
    _taken: set[str] = field(default_factory=set[str])

    def add(self, field_name: str, path: Path, spec: int) -> str:
        """Add a file, and return its key.

        Raises:
            SpecError: The file cannot be read.
        """
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links keep their own names
        known = self.keys.get((field_name, absolute))
        if known is not None:
            return known
        _check_readable(field_name, path, absolute, spec)
        key = self.layout.artifact(field_name, absolute.name)
        if key in self._taken:
            digest = hashlib.sha256(str(absolute.parent).encode()).hexdigest()[:12]
            key = self.layout.artifact(field_name, f"{digest}/{absolute.name}")
        self._taken.add(key)
        self.keys[field_name, absolute] = key
        return key

    def upload(self, store: Store, report: Callable[[str], None]) -> None:
        """Upload all files, a few in parallel."""
        if not self.keys:
            return
        report(f"uploading {len(self.keys)} input file(s)")
        with ThreadPoolExecutor(max_workers=_UPLOADS) as pool:
            jobs = [pool.submit(store.put_file, key, path) for (_, path), key in self.keys.items()]
            for job in jobs:
                job.result()

    def digests(self, store: Store) -> dict[str, str]:
        """Return the SHA-256 of each file, by its URI."""
        with ThreadPoolExecutor(max_workers=_UPLOADS) as pool:
            found = pool.map(_digest, [path for _, path in self.keys])
            uris = map(store.uri, self.keys.values())
            return dict(zip(uris, found, strict=True))

    def uris(self, store: Store) -> dict[str, list[str]]:
        """Return the URIs of the files by field, sorted."""
        found: dict[str, list[str]] = {}
        for (name, _), key in self.keys.items():
            found.setdefault(name, []).append(store.uri(key))
        return {name: sorted(uris) for name, uris in found.items()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_readable(field_name: str, path: Path, absolute: Path, spec: int) -> None:
    try:
        absolute.name.encode()
        mode = absolute.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # to open a pipe would wait for its writer
            with absolute.open("rb") as file:
                file.read(1)
            return
        reason = "it is a pipe, socket or device, not a regular file"
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeEncodeError:
        reason = "its name is not valid UTF-8, as keys of the bucket must be"
    raise SpecError(
        f"Spec {spec}: the file of field {field_name!r}, {str(path)!r}, cannot be read "
        f"({reason}): correct the path (relative ones start at "
        f"{Path.cwd()}). Nothing was uploaded or started."
    )
