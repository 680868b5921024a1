"""URIs of files: in S3 by bucket and key, and as they may be shown to others."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import AnyUrl, UrlConstraints


class S3Url(AnyUrl):
    """A URL for an S3 object."""

    _constraints = UrlConstraints(allowed_schemes=["s3"], host_required=True)


_SAFE = "/!$&'()*+,;=:@"  # and letters, digits, `_.-~`: what a URL parser leaves as it is
_SECRET_NAME = re.compile(
    r"sig|token|secret|passw|pwd|credential|key|auth|session|policy|hash|hmac|jwt|code",
    re.IGNORECASE,
)
_TOKEN_CHARS = 20  # a value that is longer may be a token, whatever its name is
_URL_IN_TEXT = re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE)


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key; `%20` and alike in the key are resolved."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, unquote(key)


def join_s3_uri(bucket: str, key: str) -> str:
    """Return the URI of a key, such that `split_s3_uri` gives the key back."""
    return f"s3://{bucket}/{quote(key, safe=_SAFE)}"


def shown_uri(uri: Any) -> str:
    """Return a URI for messages and tables: `***` takes the place of passwords and signatures."""
    text = str(uri)
    if not text.lower().startswith(("http:", "https:")) or not ("?" in text or "@" in text):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return text.partition("?")[0].rpartition("@")[2]
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"***@{host}" if at and user else host
    query = "&".join(map(_shown_parameter, parts.query.split("&"))) if parts.query else ""
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def hide_secrets(text: str) -> str:
    """Return a text with the URLs in it as they may be shown."""
    return _URL_IN_TEXT.sub(lambda found: shown_uri(found[0]), text)


def _shown_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return "***" if len(name) > _TOKEN_CHARS else name
    is_secret = len(value) > _TOKEN_CHARS or _SECRET_NAME.search(name)
    return f"{name}=***" if is_secret else parameter
