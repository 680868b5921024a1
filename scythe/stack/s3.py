"""The part `s3`: Versity's S3 server over a folder, in the engine's program."""

from __future__ import annotations

from pathlib import Path

from scythe.stack.connection import BUCKET, REGION, s3_url
from scythe.stack.engine_build import engine_version
from scythe.stack.parts import Starter
from scythe.stack.paths import S3, private_folder
from scythe.stack.ports import http_status
from scythe.stack.programs import base_environment
from scythe.stack.state import PartRecord

_START_LIMIT = 60.0  # seconds
_FORBIDDEN = 403


def start_s3(starter: Starter, program: Path) -> None:
    """Start the S3 server and wait until it answers; it opens its port when the bucket is there.

    Raises:
        PartFailed: It does not start.
    """
    folder = starter.layout.s3
    private_folder(folder)
    record = starter.launch(
        S3,
        [str(program), "s3", str(folder)],
        env=base_environment()
        | {
            "SCYTHE_S3_ACCESS_KEY": starter.keys.access_key,
            "SCYTHE_S3_SECRET_KEY": starter.keys.secret_key,
            "SCYTHE_S3_PORT": str(starter.state.ports["s3"]),
            "SCYTHE_S3_REGION": REGION,
            "SCYTHE_S3_BUCKET": BUCKET,
        },
        cwd=folder,
        version=engine_version(),
    )
    await_s3(starter, record)


def await_s3(starter: Starter, record: PartRecord) -> None:
    """Wait until the S3 server refuses a request without a signature.

    Raises:
        PartFailed: It does not.
    """
    ports = starter.state.ports

    def obstacle() -> str | None:
        if http_status(ports["s3"], "/") == _FORBIDDEN:
            return None
        return f"an unsigned GET of {s3_url(ports)} is not answered with {_FORBIDDEN}"

    starter.await_ready(S3, record, obstacle, _START_LIMIT)
