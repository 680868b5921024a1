"""The part `engine`: Hatchet's engine and REST API, in one process."""

from __future__ import annotations

import socket
from pathlib import Path

from scythe.stack.connection import api_url, grpc_address, token_addresses
from scythe.stack.engine_build import engine_version
from scythe.stack.parts import Starter
from scythe.stack.paths import ENGINE, HOST, private_folder
from scythe.stack.ports import http_status
from scythe.stack.postgres import create_database, database_url
from scythe.stack.programs import base_environment
from scythe.stack.state import PartRecord

_TOKEN_LIFE = "87600h"  # noqa: S105 - ten years
_START_LIMIT = 120.0  # seconds
_PREPARE_LIMIT = 300.0  # seconds
_OK = 200

_SETTINGS = {
    "SERVER_MSGQUEUE_KIND": "postgres",
    "SERVER_GRPC_BIND_ADDRESS": HOST,
    "SERVER_GRPC_INSECURE": "t",
    # One machine, one user: Hatchet's limits for many tenants only slow a large run down.
    "SERVER_GRPC_RATE_LIMIT": "100000",
    "SERVER_API_RATE_LIMIT": "100000",
    "SERVER_GRPC_SHUTDOWN_TIMEOUT": "2s",
    # Nobody logs in with a password: clients have a token.
    "SERVER_AUTH_BASIC_AUTH_ENABLED": "f",
    "SERVER_AUTH_COOKIE_DOMAIN": "localhost",
    "SERVER_AUTH_COOKIE_INSECURE": "t",
    "SERVER_ALLOW_SIGNUP": "f",
    "SERVER_ALLOW_INVITES": "f",
    "SERVER_ALLOW_CREATE_TENANT": "f",
    "SERVER_SECURITY_CHECK_ENABLED": "f",  # it would report to Hatchet's makers
    "SERVER_LOGGER_LEVEL": "warn",
    "SERVER_LOGGER_FORMAT": "console",
    "NO_COLOR": "1",
    "DATABASE_LOGGER_LEVEL": "warn",
    "DATABASE_MAX_CONNS": "40",
    "DATABASE_MIN_CONNS": "4",
}


def prepare_engine(starter: Starter, program: Path) -> None:
    """Bring keys, database and token to the state that this engine and these ports need.

    Raises:
        PartFailed: A step failed.
    """
    folder = starter.layout.engine
    private_folder(folder)
    if not (folder / "public.key").is_file():
        _run(starter, program, "keys", str(folder))
        starter.remember_token("", "")
    if starter.state.schema != engine_version():
        starter.report(f"preparing the database for Hatchet {engine_version()}")
        create_database(starter)
        _run(starter, program, "prepare", str(folder))
        starter.remember(schema=engine_version())
    addresses = token_addresses(starter.state.ports)
    if starter.keys.token_for != addresses:
        token = _run(starter, program, "token", str(folder), "scythe-dev", _TOKEN_LIFE, output=True)
        starter.remember_token(token.strip(), addresses)


def start_engine(starter: Starter, program: Path) -> None:
    """Start the engine and wait until it answers; the database runs and is prepared.

    Raises:
        PartFailed: It does not start.
    """
    folder = starter.layout.engine
    argv = [str(program), "serve", str(folder)]
    env = _environment(starter)
    record = starter.launch(ENGINE, argv, env=env, cwd=folder, version=engine_version())
    await_engine(starter, record)


def await_engine(starter: Starter, record: PartRecord) -> None:
    """Wait until the engine answers on both ports.

    Raises:
        PartFailed: It does not answer.
    """
    ports = starter.state.ports

    def obstacle() -> str | None:
        if http_status(ports["api"], "/api/ready") != _OK:
            return f"GET {api_url(ports)}/api/ready does not answer with {_OK}"
        if not _speaks_http2(ports["grpc"]):
            return f"no gRPC server answers at {grpc_address(ports)}"
        return None

    starter.await_ready(ENGINE, record, obstacle, _START_LIMIT)


def _run(starter: Starter, program: Path, *words: str, output: bool = False) -> str:
    return starter.helper(
        ENGINE,
        [str(program), *words],
        env=_environment(starter),
        cwd=starter.layout.engine,
        timeout=_PREPARE_LIMIT,
        output=output,
    )


def _environment(starter: Starter) -> dict[str, str]:
    folder = starter.layout.engine
    ports = starter.state.ports
    return (
        base_environment()
        | _SETTINGS
        | {
            "DATABASE_URL": database_url(starter.layout),
            "SERVER_ENCRYPTION_MASTER_KEYSET_FILE": str(folder / "master.key"),
            "SERVER_ENCRYPTION_JWT_PRIVATE_KEYSET_FILE": str(folder / "private.key"),
            "SERVER_ENCRYPTION_JWT_PUBLIC_KEYSET_FILE": str(folder / "public.key"),
            "SERVER_AUTH_COOKIE_SECRETS": starter.keys.cookies,
            "SERVER_URL": api_url(ports),
            "SERVER_PORT": str(ports["api"]),
            "SERVER_GRPC_PORT": str(ports["grpc"]),
            "SERVER_GRPC_BROADCAST_ADDRESS": grpc_address(ports),
            "SERVER_INTERNAL_CLIENT_INTERNAL_GRPC_BROADCAST_ADDRESS": grpc_address(ports),
        }
    )


def _speaks_http2(port: int) -> bool:
    """Return whether a server answers the opening of HTTP/2, on which gRPC runs, with its own."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty frame of type 4
    try:
        with socket.create_connection((HOST, port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == len(settings) and answer[3] == 4
