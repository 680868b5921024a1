"""Downloads files by URI, completely or not at all, with limits of time and size."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import threading
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
from scythe.storage import cache, http
from scythe.storage.http import FetchLimits
from scythe.storage.store import Store, open_bucket
from scythe.storage.uris import shown_uri, split_s3_uri

_NAME_BYTES = 200  # of a cached file's name; file systems take 255
_FOLDER_ATTEMPTS = 5  # the folder may be removed from the cache while a file is put into it
_LEAF_MARGIN_SECONDS = 1.0  # in which a leaf that gives up tells so before its limit

_default_store: StoreConfig | None = None
_leaf_deadline: float | None = None


def set_default_store(store: StoreConfig | None) -> None:
    """Set the store for `s3` URIs in this process when none is given."""
    global _default_store
    _default_store = store


def begin_leaf(deadline: float) -> None:
    """Say when the leaf that runs now must be over, on the monotonic clock.

    The files that it fetches stay in the cache until the next leaf begins, or `end_leaf`.
    """
    global _leaf_deadline
    _leaf_deadline = deadline
    if cache.held:
        cache.release()


def end_leaf() -> None:
    """Say that no leaf runs any more."""
    global _leaf_deadline
    _leaf_deadline = None
    cache.release()


def cached_path(uri: AnyUrl | str, scope: str = "") -> Path:
    """Return the cache path for the download of `uri`.

    The name contains a digest of scope and URI, so that no URI leads out of the cache folder.

    Args:
        uri: The URI of the file.
        scope: The id of the run that the copy belongs to, because web files may change.

    Raises:
        FetchError: The URI has no path.
    """
    text = str(uri)
    parts = urlsplit(text)
    path = split_s3_uri(text)[1] if text.startswith("s3:") else unquote(parts.path)
    name = path.replace("\x00", "").rstrip("/").rpartition("/")[2]
    if not name and parts.scheme in ("http", "https") and parts.query:
        name = "index"  # the query says which file it is
    if not name or name in (".", ".."):
        shown = shown_uri(text)
        raise FetchError(f"URI:NO_PATH:{shown}: the URI names no file, give one with a path.")
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

    The file appears completely or not at all, even if many processes request it at one time.

    Args:
        uri: The URI to fetch.
        local_path: Where the file goes.
        use_cache: Whether to use an existing file.
        s3: A boto3 client for `s3` URIs; by default the store's own.
        store: The object store, for `s3` URIs of its bucket.

    Returns:
        The local path.

    Raises:
        FetchError: The file cannot be fetched: the message names the URI and says why.
    """
    local_path = Path(local_path)
    shown = shown_uri(uri)
    is_new = False
    for attempt in range(1, _FOLDER_ATTEMPTS + 1):
        keep = _leaf_deadline is not None
        if (use_cache or is_new) and local_path.exists() and cache.use(local_path, keep=keep):
            if is_new:
                cache.note_download(local_path)
            return local_path
        try:
            _fetch_locked(str(uri), local_path, use_cache, s3, store)
            is_new = True
        except FileNotFoundError as error:
            if attempt == _FOLDER_ATTEMPTS:
                raise _folder_error(shown, local_path, error) from error
        except FetchError:
            raise
        except ScytheError as error:
            raise FetchError(f"Cannot fetch {shown}: {error}") from error
        except OSError as error:
            raise _folder_error(shown, local_path, error) from error
    raise FetchError(
        f"Cannot keep {shown} in the cache: it is removed at once. Raise SCYTHE_CACHE_MAX_BYTES."
    )


def _folder_error(shown: str, local_path: Path, error: OSError) -> FetchError:
    return FetchError(
        f"Cannot fetch {shown} to {local_path} ({error.strerror or error}): "
        "check the path and the free disk space."
    )


def _fetch_locked(uri: str, target: Path, use_cache: bool, s3: Any, store: Any) -> None:
    """Download a file unless another process has just done so."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    with _locked(target.with_name(f".{lock}.lock")):
        if not (use_cache and target.exists()):
            _fetch_whole(uri, target, s3, store)


@contextmanager
def _locked(lock: Path) -> Generator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _fetch_whole(uri: str, target: Path, s3: Any, store: StoreConfig | None) -> None:
    limits = _limits()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    part = Path(name)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)  # who makes room in the cache leaves it alone
        scheme = urlsplit(uri).scheme
        if scheme == "s3":
            _fetch_s3(uri, part, _store_of(uri, s3, store), limits)
        elif scheme in ("http", "https"):
            http.download(uri, part, limits)
        elif scheme == "file":
            _fetch_file(uri, part, limits)
        else:
            raise FetchError(f"URI:SCHEME:{scheme}: cannot fetch {uri}; use s3, http(s) or file.")
        # Cached files are shared by leaves: a leaf that needs to write takes a copy.
        part.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        part.replace(target)
    finally:
        os.close(handle)
        part.unlink(missing_ok=True)


def _limits() -> FetchLimits:
    settings = FetchSettings()
    now = time.monotonic()
    deadline = now + settings.TIMEOUT.total_seconds()
    setting = "SCYTHE_FETCH_TIMEOUT"
    if _leaf_deadline is not None and _leaf_deadline - _LEAF_MARGIN_SECONDS < deadline:
        deadline = _leaf_deadline - _LEAF_MARGIN_SECONDS
        setting = "the leaf's execution_timeout"
    return FetchLimits(deadline, settings.MAX_BYTES, setting)


def _store_of(uri: str, s3: Any, config: StoreConfig | None) -> Store:
    bucket, key = split_s3_uri(uri)
    if not bucket or not key:
        raise FetchError(f"S3URI:NO_PATH:{uri}: use s3://<bucket>/<key>.")
    if s3 is not None:
        return Store(StoreConfig(bucket=bucket), client=s3)
    return open_bucket(bucket, config or _default_store or store_config())


def _fetch_s3(uri: str, part: Path, store: Store, limits: FetchLimits) -> None:
    """Download from S3 in a thread, the only way to enforce a deadline on the client."""
    key = split_s3_uri(uri)[1]
    seconds = max(0.0, limits.deadline - time.monotonic())
    store = store.with_patience(seconds)
    errors: list[BaseException] = []
    is_late = threading.Event()

    def work() -> None:
        try:
            limits.check_size(uri, store.size(key))
            store.download(key, part)
        except BaseException as error:  # noqa: BLE001 - it is raised by the one who waits
            errors.append(error)
        if is_late.is_set():
            part.unlink(missing_ok=True)

    thread = threading.Thread(target=work, name="scythe-fetch", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        is_late.set()
        raise limits.timeout_error(uri)
    if errors:
        raise errors[0]


def _fetch_file(uri: str, part: Path, limits: FetchLimits) -> None:
    source = Path(unquote(urlsplit(uri).path))
    if source.exists() and not (source.is_file() or source.is_dir()):
        raise FetchError(
            f"Cannot fetch {uri}: it is a pipe, socket or device, not a regular file. Copy what "
            "it gives into a file."
        )
    if not source.is_file():
        raise FetchError(f"Cannot fetch {uri}: there is no such file on this machine.")
    limits.check_size(uri, source.stat().st_size)
    shutil.copyfile(source, part)
