"""Fetch files by URI into local paths: whole or not at all, with limits of time and size."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import AnyUrl

from scythe.errors import FetchError, ScytheError
from scythe.outcomes import StoreConfig
from scythe.settings import FetchSettings, cache_folder, store_config
from scythe.storage.files import split_s3_uri
from scythe.storage.store import Store, open_bucket

_NAME_BYTES = 200  # of a cached file's name; file systems take 255
_READ_SECONDS = 30.0  # without a byte from the server

_default_store: StoreConfig | None = None


def set_default_store(store: StoreConfig | None) -> None:
    """Say which store `s3` URIs are read from in this process, where none is named."""
    global _default_store
    _default_store = store


def cached_path(uri: AnyUrl | str, scope: str = "") -> Path:
    """Return where the download of `uri` is cached.

    The name is made of a digest of scope and URI, so that no URI leaves the cache folder.

    Args:
        uri: The URI of the file.
        scope: What the cached copy belongs to: the id of a run, as web files may change.

    Raises:
        FetchError: The URI has no path.
    """
    text = str(uri)
    path = split_s3_uri(text)[1] if text.startswith("s3:") else unquote(urlsplit(text).path)
    name = path.replace("\x00", "").rstrip("/").rpartition("/")[2]
    if not name or name in (".", ".."):
        raise FetchError(f"URI:NO_PATH:{uri}: the URI names no file, give one with a path.")
    digest = hashlib.sha256(f"{scope}\n{uri}".encode()).hexdigest()[:32]
    while len(name.encode()) > _NAME_BYTES:
        name = name[1:]  # the suffix is kept
    return cache_folder() / "files" / digest / name


def fetch_uri(
    uri: AnyUrl | str,
    local_path: Path,
    use_cache: bool = True,
    s3: Any = None,
    *,
    store: StoreConfig | None = None,
) -> Path:
    """Fetch a file from a URI (`s3`, `http`, `https` or `file`) to a local path.

    The file appears whole or not at all, also when many processes ask for it at one time.

    Args:
        uri: The URI to fetch.
        local_path: Where the file goes.
        use_cache: Whether a file that is there already is taken as it is.
        s3: A boto3 client for `s3` URIs; by default the store's own.
        store: The object store, for `s3` URIs of its bucket.

    Returns:
        The local path.

    Raises:
        FetchError: The file cannot be fetched: the message names the URI and says why.
    """
    local_path = Path(local_path)
    if use_cache and local_path.exists():
        return local_path
    try:
        local_path.parent.mkdir(parents=True, exist_ok=True)
        lock = hashlib.sha256(os.fsencode(local_path.name)).hexdigest()[:16]
        with _locked(local_path.with_name(f".{lock}.lock")):
            if not (use_cache and local_path.exists()):
                _fetch_whole(str(uri), local_path, s3, store)
    except FetchError:
        raise
    except ScytheError as error:
        raise FetchError(f"Cannot fetch {uri}: {error}") from error
    except OSError as error:
        raise FetchError(
            f"Cannot fetch {uri} to {local_path} ({error.strerror or error}): "
            "check the path and the free disk space."
        ) from error
    return local_path


@contextmanager
def _locked(lock: Path) -> Generator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _fetch_whole(uri: str, target: Path, s3: Any, store: StoreConfig | None) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    os.close(handle)
    part = Path(name)
    try:
        scheme = urlsplit(uri).scheme
        if scheme == "s3":
            _fetch_s3(uri, part, s3, store)
        elif scheme in ("http", "https"):
            _fetch_http(uri, part)
        elif scheme == "file":
            _fetch_file(uri, part)
        else:
            raise FetchError(f"URI:SCHEME:{scheme}: cannot fetch {uri}; use s3, http(s) or file.")
        # Cached files are shared by leaves: a leaf that needs to write takes a copy.
        part.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _fetch_s3(uri: str, part: Path, s3: Any, config: StoreConfig | None) -> None:
    bucket, key = split_s3_uri(uri)
    if not bucket or not key:
        raise FetchError(f"S3URI:NO_PATH:{uri}: use s3://<bucket>/<key>.")
    config = config or _default_store or store_config()
    if s3 is not None:
        store = Store(StoreConfig(bucket=bucket), client=s3)
    else:
        store = open_bucket(bucket, config)
    _check_size(uri, store.size(key), FetchSettings().MAX_BYTES)
    store.download(key, part)


def _fetch_http(uri: str, part: Path) -> None:
    import httpx

    limit = FetchSettings()
    seconds = limit.TIMEOUT.total_seconds()
    deadline = time.monotonic() + seconds
    pause = min(_READ_SECONDS, seconds)
    try:
        with (
            httpx.Client(follow_redirects=True, timeout=httpx.Timeout(pause)) as client,
            client.stream("GET", uri) as response,
            part.open("wb") as file,
        ):
            response.raise_for_status()
            _check_size(uri, int(response.headers.get("content-length") or 0), limit.MAX_BYTES)
            for block in response.iter_bytes():  # as they come: a trickle meets the deadline too
                file.write(block)
                _check_size(uri, file.tell(), limit.MAX_BYTES)
                if time.monotonic() > deadline:
                    raise FetchError(
                        f"Cannot fetch {uri}: not there after {limit.TIMEOUT}. "
                        "Raise SCYTHE_FETCH_TIMEOUT if the file is that large."
                    )
    except httpx.HTTPStatusError as error:
        raise FetchError(
            f"Cannot fetch {uri}: the server answered {error.response.status_code} "
            f"{error.response.reason_phrase}. Check the address."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(
            f"Cannot fetch {uri} ({type(error).__name__}: {error}): check address and network."
        ) from error


def _fetch_file(uri: str, part: Path) -> None:
    source = Path(unquote(urlsplit(uri).path))
    if not source.is_file():
        raise FetchError(f"Cannot fetch {uri}: there is no such file on this machine.")
    _check_size(uri, source.stat().st_size, FetchSettings().MAX_BYTES)
    shutil.copyfile(source, part)


def _check_size(uri: str, size: int, limit: int) -> None:
    if size > limit:
        raise FetchError(
            f"Cannot fetch {uri}: it has {size} bytes, more than SCYTHE_FETCH_MAX_BYTES={limit}."
        )
