"""File references under the path that scythe-engine gave them."""

from __future__ import annotations

from scythe.storage.fetch import fetch_uri
from scythe.storage.files import FileReference, FileReferenceMixin, OptionalFileReference, S3Url

__all__ = ["FileReference", "FileReferenceMixin", "OptionalFileReference", "S3Url", "fetch_uri"]
