"""The object store: the only module that talks to S3."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from scythe.errors import StorageError
from scythe.outcomes import StoreConfig
from scythe.processes.blocking import call_within
from scythe.storage.files import join_s3_uri
from scythe.storage.folder_client import SCHEME, FolderClient

_CONNECT_TIMEOUT = 10
_READ_TIMEOUT = 60
_CHECK_SECONDS = 10.0
_PATIENCE = 120.0  # seconds of retries while the store is unreachable
_ATTEMPTS = 3  # attempts of the SDK, whose own back-off takes only seconds
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_KEYS = 1000  # limit of keys per request
_ROOM_PATIENCE = 7 * 86_400.0  # seconds; the time limit of a leaf ends the wait earlier
_SAY_AGAIN = 60.0
_PROBE_BYTES = 64 * 1024  # a disk with less free space counts as full
T = TypeVar("T")
_CHUNK = 1 << 20  # bytes in memory while an object is downloaded to a file
_MISSING = ("404", "NoSuchKey", "NotFound")
# Versity (the local stack), MinIO, Ceph
_FULL = ("InsufficientStorage", "XMinioStorageFull", "StorageFull", "QuotaExceeded")
# How the local stack's server refuses an object while another request deletes its folder.
_COLLISIONS = ("NoSuchBucket", "ExistingObjectIsDirectory")
_COLLISION_SECONDS = 2.0
_room_patience = 0.0  # of this process, see `wait_for_room`
logger = logging.getLogger(__name__)


class Store:
    """One bucket.

    Args:
        config: The bucket and how it is reached.
        client: A boto3 S3 client to use instead of one of our own.
        patience: Seconds for which a request is tried again while the store is away.
    """

    def __init__(
        self, config: StoreConfig, client: Any = None, patience: float = _PATIENCE
    ) -> None:
        self.config = config
        self.bucket = config.bucket
        self._patience = patience
        self.client: Any = client or _make_client(config, _ATTEMPTS if patience else 1)

    def with_patience(self, seconds: float) -> Store:
        """Return this store with another limit for retries."""
        return Store(self.config, self.client, min(seconds, self._patience))

    def uri(self, key: str) -> str:
        """Return the `s3://` URI of a key."""
        return join_s3_uri(self.bucket, key)

    def put_bytes(self, key: str, data: bytes) -> str:
        """Write an object and return its URI."""
        self._do("write", key, "put_object", Bucket=self.bucket, Key=key, Body=data)
        return self.uri(key)

    def put_file(self, key: str, path: Path) -> str:
        """Upload a file (by parts when it is large) and return its URI."""
        name = os.fspath(path)
        self._do("write", key, "upload_file", Filename=name, Bucket=self.bucket, Key=key)
        return self.uri(key)

    def get_bytes(self, key: str) -> bytes:
        """Read a whole object."""

        def read() -> bytes:
            return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

        return self._patiently("read", key, read)

    def find_bytes(self, key: str) -> bytes | None:
        """Read a whole object; None if it does not exist."""
        try:
            return self.get_bytes(key)
        except StorageError as error:
            if is_missing(error.__cause__):
                return None
            raise

    def download(self, key: str, path: Path) -> None:
        """Write an object to a local file. The file may be incomplete after an error."""
        name = os.fspath(path)
        self._do("read", key, "download_file", Bucket=self.bucket, Key=key, Filename=name)

    def download_small(self, key: str, path: Path) -> None:
        """Download an object with one request. The file is complete or does not exist."""
        partial = path.with_name(f"{path.name}.partial")

        def read() -> None:
            body = self.client.get_object(Bucket=self.bucket, Key=key)["Body"]
            with partial.open("wb") as file:
                file.writelines(body.iter_chunks(_CHUNK))

        self._patiently("read", key, read)
        partial.replace(path)

    def size(self, key: str) -> int:
        """Return the size of an object in bytes."""
        head = self._do("read", key, "head_object", Bucket=self.bucket, Key=key)
        return int(head["ContentLength"])

    def age(self, key: str) -> float | None:
        """Return the seconds since an object was written, by the store's clock; None without it."""
        head = self._find_head(key)
        if head is None:
            return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return (now - head["LastModified"]).total_seconds()

    def modified(self, key: str) -> float | None:
        """Return when an object was written, in seconds since 1970; None where there is none."""
        head = self._find_head(key)
        return None if head is None else head["LastModified"].timestamp()

    def _find_head(self, key: str) -> dict[str, Any] | None:
        """Return the metadata of an object; None where there is none."""
        try:
            return self._do("read", key, "head_object", Bucket=self.bucket, Key=key)
        except StorageError as error:
            if is_missing(error.__cause__):
                return None
            raise

    def clock(self) -> float:
        """Return the store's time, in seconds since 1970."""
        head = self._do("reach", "", "head_bucket", Bucket=self.bucket)
        return parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        self._do("delete", key, "delete_object", Bucket=self.bucket, Key=key)

    def delete_all(self, prefix: str) -> None:
        """Delete all objects below a prefix."""
        keys = [{"Key": key} for key in self.list_keys(prefix)]
        for first in range(0, len(keys), _KEYS):
            chunk = {"Objects": keys[first : first + _KEYS], "Quiet": True}
            self._do("delete", prefix, "delete_objects", Bucket=self.bucket, Delete=chunk)

    def list_keys(self, prefix: str, *, recursive: bool = True) -> Iterator[str]:
        """Yield the keys below a prefix, in order."""
        for page in self._pages(prefix, recursive=recursive):
            yield from (item["Key"] for item in page.get("Contents", []))

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders directly below a prefix, in order."""
        for page in self._pages(prefix, recursive=False):
            for item in page.get("CommonPrefixes", []):
                yield item["Prefix"][len(prefix) :].rstrip("/")

    def check(self) -> None:
        """Raise `StorageError` within seconds unless the bucket exists and the keys give access."""
        at_once = Store(self.config, self.client, patience=0)
        late = TimeoutError(f"it does not answer within {_CHECK_SECONDS:.0f} s")
        call_within(
            _CHECK_SECONDS,
            lambda: at_once._do("reach", "", "head_bucket", Bucket=self.bucket),
            lambda: StorageError(self._explain("reach", "", late)),
        )

    def probe(self, key: str) -> str:
        """Write and delete a small object; return why the store refuses it, or an empty text.

        Also empty for keys that may only read.
        """
        try:
            _impatient(self.config).put_bytes(key, bytes(_PROBE_BYTES))
            self.delete(key)
        except StorageError as error:
            return str(error) if _may_pass(error.__cause__) else ""
        return ""

    def _pages(self, prefix: str, *, recursive: bool) -> Iterator[dict[str, Any]]:
        options: dict[str, Any] = {"Bucket": self.bucket, "Prefix": prefix}
        if not recursive:
            options["Delimiter"] = "/"
        while True:
            page = self._do("list", prefix, "list_objects_v2", **options)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _do(self, verb: str, key: str, operation: str, **arguments: Any) -> Any:
        """Call a method of the client."""
        return self._patiently(verb, key, lambda: getattr(self.client, operation)(**arguments))

    def _patiently(self, verb: str, key: str, request: Callable[[], T]) -> T:
        """Make a request, with retries while the store is unreachable.

        Raises:
            StorageError: The request is refused, or the store stays unreachable.
        """
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        began = time.monotonic()
        pause = _FIRST_PAUSE
        said_at = float("-inf")
        while True:
            try:
                return request()
            except (BotoCoreError, ClientError, S3UploadFailedError) as error:
                cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
                reason = cause or error
                now = time.monotonic()
                is_full = _is_full(reason)
                patience = max(self._patience, _room_patience if is_full else 0.0)
                if _code(reason) in _COLLISIONS:
                    patience = _COLLISION_SECONDS
                elif not _may_pass(reason):
                    patience = 0.0
                if now + pause > began + patience:
                    raise StorageError(self._explain(verb, key, reason)) from reason
                if is_full and _room_patience and now > said_at + _SAY_AGAIN:
                    said_at = now
                    logger.warning("%s Trying again.", self._explain(verb, key, reason))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _explain(self, verb: str, key: str, error: BaseException) -> str:
        where = self.config.endpoint_url or "AWS"
        code = _code(error)
        hint = "check the address and the network"
        if _is_full(error):
            hint = "the disk of the S3 server is full, make room on it"
        elif code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            hint = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do"
            if _addressing_style(self.config) == "path":
                hint += "; a store that takes only the virtual-host style needs `addressing_style "
                hint += "= virtual` below `s3 =` in ~/.aws/config"
        elif type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        elif code in _MISSING or code == "NoSuchBucket":
            hint = (
                "check the key"
                if key and code != "NoSuchBucket"
                else "create the bucket or correct SCYTHE_STORAGE_BUCKET"
            )
        elif "Endpoint" in type(error).__name__ or "Connect" in type(error).__name__:
            hint = "check AWS_ENDPOINT_URL_S3, and that the S3 server runs"
        return f"Cannot {verb} {self.uri(key)} at {where} ({error}): {hint}."


def check_client(config: StoreConfig, client: Any) -> None:
    """Raise `StorageError` if the user's client cannot reach the local stack's bucket."""
    ours = config.endpoint_url or ""
    if "127.0.0.1" not in ours:
        return
    theirs = str(getattr(getattr(client, "meta", None), "endpoint_url", ours))
    if "amazonaws.com" in theirs:
        raise StorageError(
            f"The bucket {config.bucket} is that of the local stack at {config.endpoint_url}, and "
            f"this s3_client is for {theirs}, as it was made before anything of Scythe was used: "
            'run `eval "$(scythe dev env)"` before the script, or leave s3_client out.'
        )


def is_missing(error: BaseException | None) -> bool:
    """Return whether an error of the store means that the object does not exist."""
    return error is not None and _code(error) in _MISSING


def _may_pass(error: BaseException | None) -> bool:
    """Return whether an error means that the store is unreachable, not that it refuses."""
    from botocore import exceptions

    if not isinstance(error, exceptions.ClientError):
        return isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or _code(error) in ("SlowDown", "RequestTimeout")


def _is_full(error: BaseException | None) -> bool:
    """Return whether an error means that the store's disk is full."""
    response: Any = getattr(error, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error is not None and (status == 507 or _code(error) in _FULL)


def wait_for_room() -> None:
    """Make this process retry writes for days while the store's disk is full.

    For the processes of a worker, so that finished work is not lost.
    """
    global _room_patience
    _room_patience = _ROOM_PATIENCE


def _code(error: BaseException) -> str:
    response: Any = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _addressing_style(config: StoreConfig) -> str:
    """Return the addressing style; most servers other than AWS need the bucket in the path."""
    return config.addressing_style or ("path" if config.endpoint_url else "auto")


def _make_client(config: StoreConfig, attempts: int) -> Any:
    if (config.endpoint_url or "").startswith(SCHEME):
        return FolderClient(str(config.endpoint_url))
    from boto3.session import Session
    from botocore.config import Config

    return Session().client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region,
        aws_access_key_id=config.access_key_id,
        aws_secret_access_key=config.secret_access_key,
        aws_session_token=config.session_token,
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT,
            read_timeout=_READ_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=32,
            s3={"addressing_style": _addressing_style(config)},
            # Servers other than AWS often refuse the newer default check sums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def arrow_filesystem(config: StoreConfig) -> Any:
    """Return the store as a file system of Arrow, which reads parts of objects."""
    from pyarrow.fs import S3FileSystem

    options: dict[str, Any] = {
        "access_key": config.access_key_id,
        "secret_key": config.secret_access_key,
        "session_token": config.session_token,
        "region": config.region,
    }
    if config.endpoint_url:
        scheme, _, host = config.endpoint_url.rstrip("/").rpartition("://")
        options |= {"endpoint_override": host, "scheme": scheme or "https"}
        options["force_virtual_addressing"] = _addressing_style(config) == "virtual"
    return S3FileSystem(**{name: value for name, value in options.items() if value is not None})


@lru_cache(maxsize=16)
def open_store(config: StoreConfig) -> Store:
    """Return the store for `config`, with one client per process and store."""
    return Store(config)


@lru_cache(maxsize=16)
def _impatient(config: StoreConfig) -> Store:
    return Store(config, patience=0)


@lru_cache(maxsize=16)
def open_bucket(bucket: str, like: StoreConfig) -> Store:
    """Return the store of any bucket, for reading.

    Another bucket than that of `like` is opened with this process's own AWS keys, or with those of
    `like` if it has none, as on a host of a cluster.
    """
    from boto3.session import Session

    if bucket == like.bucket:
        return open_store(like)
    if Session().get_credentials() is not None:
        return open_store(StoreConfig(bucket=bucket))
    return open_store(replace(like, bucket=bucket))
