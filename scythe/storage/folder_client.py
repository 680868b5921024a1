"""A folder in place of a bucket, for leaves that run without an S3 server."""

from __future__ import annotations

import io
import shutil
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

SCHEME = "file://"


class FolderClient:
    """Answers those calls of a boto3 S3 client that leaves need, from a folder.

    Args:
        endpoint_url: Its URL, `file://…`.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._root = Path(url2pathname(urlsplit(endpoint_url).path))

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803
        """Write an object."""
        self._made(Bucket, Key).write_bytes(Body)

    def upload_file(self, *, Filename: str, Bucket: str, Key: str) -> None:  # noqa: N803
        """Write a file as an object."""
        shutil.copyfile(Filename, self._made(Bucket, Key))

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        """Read an object."""
        return {"Body": io.BytesIO((self._root / Bucket / Key).read_bytes())}

    def download_file(self, *, Bucket: str, Key: str, Filename: str) -> None:  # noqa: N803
        """Write an object to a file."""
        shutil.copyfile(self._root / Bucket / Key, Filename)

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        """Return size and time of an object."""
        found = (self._root / Bucket / Key).stat()
        headers = {"date": format_datetime(datetime.now(UTC), usegmt=True)}
        return {
            "ContentLength": found.st_size,
            "LastModified": datetime.fromtimestamp(found.st_mtime, UTC),
            "ResponseMetadata": {"HTTPHeaders": headers},
        }

    def _made(self, bucket: str, key: str) -> Path:
        path = self._root / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
