"""One signed request to the local S3 server, without a client library.

Only `scythe.storage.store` uses one, and loading it would take longer than the server's start.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
from datetime import UTC, datetime

from scythe.stack.paths import HOST


def signed_request(
    method: str,
    port: int,
    path: str,
    *,
    access_key: str,
    secret_key: str,
    region: str,
    body: bytes = b"",
    timeout: float = 5.0,
) -> int:
    """Send a request with an AWS signature (version 4).

    Args:
        method: For example `PUT`.
        port: The server's loopback port.
        path: The path, of characters that need no escape.
        access_key: Name of the key.
        secret_key: The key.
        region: The region to sign for.
        body: What to send.
        timeout: Seconds to wait for each step.

    Returns:
        The HTTP status.

    Raises:
        OSError: No answer.
        http.client.HTTPException: No valid answer.
    """
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": f"{HOST}:{port}", "x-amz-content-sha256": digest, "x-amz-date": now}
    headers["Authorization"] = authorization(
        method, path, headers, access_key=access_key, secret_key=secret_key, region=region
    )
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def authorization(
    method: str,
    path: str,
    headers: dict[str, str],
    *,
    access_key: str,
    secret_key: str,
    region: str,
) -> str:
    """Return the header that signs a request.

    Args:
        method: For example `PUT`.
        path: The path, without a query.
        headers: The headers to sign, in lower case, with `x-amz-date` and `x-amz-content-sha256`.
        access_key: Name of the key.
        secret_key: The key.
        region: The region to sign for.
    """
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join([method, path, "", lines, names, headers["x-amz-content-sha256"]])
    now = headers["x-amz-date"]
    scope = f"{now[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    message = "\n".join(["AWS4-HMAC-SHA256", now, scope, digest])
    key = f"AWS4{secret_key}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.new(key, message.encode(), "sha256").hexdigest()
    return (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
