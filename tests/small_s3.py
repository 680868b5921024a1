"""An S3 server whose disk is soon full: the local stack's own, over a small file system."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from scythe.errors import StorageError
from scythe.outcomes import StoreConfig
from scythe.stack.engine_build import engine_program
from scythe.storage.store import Store
from tests.acceptance.running import wait_until

_BLOCK = 256 * 1024


@dataclass
class SmallS3:
    """An S3 server with a disk of 8 MiB.

    Attributes:
        env: What points a process at it.
        store: Its bucket.
    """

    env: dict[str, str]
    store: Store
    _fillers: list[str] = field(default_factory=list[str])

    def fill(self) -> None:
        """Take all room on its disk."""
        for size in (_BLOCK, 4096, 1):
            with suppress(StorageError):
                for _ in range(100):
                    key = f"filler/{len(self._fillers):04d}"
                    self._fillers.append(key)
                    self.store.put_bytes(key, bytes(size))

    def make_room(self) -> None:
        """Give the room back."""
        while self._fillers:
            self.store.delete(self._fillers.pop())


@contextmanager
def small_s3(folder: Path, *, host: str = "127.0.0.1") -> Generator[SmallS3]:
    """Run the server; root may mount what it writes to."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=10k", "scythe-test", str(folder)]
    subprocess.run(mount, check=True)
    try:
        with socket.create_server((host, 0)) as free:
            port = free.getsockname()[1]
        key, secret = secrets.token_hex(10), secrets.token_hex(20)
        process = subprocess.Popen(
            [engine_program(print), "s3", folder],
            env={
                "PATH": os.environ["PATH"],
                "SCYTHE_S3_ACCESS_KEY": key,
                "SCYTHE_S3_SECRET_KEY": secret,
                "SCYTHE_S3_PORT": str(port),
                "SCYTHE_S3_REGION": "us-east-1",
                "SCYTHE_S3_BUCKET": "small",
            },
        )
        try:
            url = f"http://{host}:{port}"
            config = StoreConfig("small", "scythe", url, "us-east-1", key, secret)
            store = Store(config, patience=0)
            wait_until(lambda: _answers(store), "the small S3 server answers", 30)
            yield SmallS3(
                {
                    "AWS_ENDPOINT_URL_S3": url,
                    "AWS_ACCESS_KEY_ID": key,
                    "AWS_SECRET_ACCESS_KEY": secret,
                    "AWS_DEFAULT_REGION": "us-east-1",
                    "SCYTHE_STORAGE_BUCKET": "small",
                },
                store,
            )
        finally:
            process.terminate()
            process.wait(20)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _answers(store: Store) -> bool:
    with suppress(StorageError):
        store.check()
        return True
    return False
