"""The parts `engine`, Hatchet's engine and REST API, and `s3`, Versity's server: one program."""

from __future__ import annotations

from dataclasses import replace

from scythe.stack.connection import BUCKET, REGION, addresses, token_addresses
from scythe.stack.engine_build import engine_program, engine_version
from scythe.stack.parts import Starter
from scythe.stack.paths import ENGINE, HOST, S3, private_folder
from scythe.stack.postgres import database_url

_TOKEN_LIFE = "87600h"  # noqa: S105 - ten years
_PREPARE_LIMIT_SECONDS = 300.0

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


def start_engine(starter: Starter) -> None:
    """Start the engine, with keys, database and token as it and its ports need them."""
    folder = starter.layout.engine
    program = engine_program(starter.report)
    env = _settings(starter)
    private_folder(folder)
    addresses = token_addresses(starter.state.ports)
    has_keys = (folder / "public.key").is_file()
    has_token = has_keys and starter.state.keys.token_for == addresses
    if not has_token or starter.state.schema != engine_version():
        starter.report(f"preparing the database for Hatchet {engine_version()}")
        argv = [program, "prepare", folder, "0s" if has_token else _TOKEN_LIFE]
        printed = starter.helper(ENGINE, argv, env=env, timeout=_PREPARE_LIMIT_SECONDS).split()
        token = starter.state.keys.token if has_token else printed[-1]
        keys = replace(starter.state.keys, token=token, token_for=addresses)
        starter.remember(schema=engine_version(), keys=keys)
    starter.launch(ENGINE, [program, "serve", folder], env=env, version=engine_version())


def start_s3(starter: Starter) -> None:
    """Start the S3 server, which opens its port when the bucket is there."""
    folder = starter.layout.s3
    private_folder(folder)
    env = {
        "SCYTHE_S3_ACCESS_KEY": starter.state.keys.access_key,
        "SCYTHE_S3_SECRET_KEY": starter.state.keys.secret_key,
        "SCYTHE_S3_PORT": str(starter.state.ports["s3"]),
        "SCYTHE_S3_REGION": REGION,
        "SCYTHE_S3_BUCKET": BUCKET,
    }
    argv = [engine_program(starter.report), "s3", folder]
    starter.launch(S3, argv, env=env, version=engine_version())


def _settings(starter: Starter) -> dict[str, str]:
    folder = starter.layout.engine
    ports = starter.state.ports
    at = addresses(ports)
    return _SETTINGS | {
        "DATABASE_URL": database_url(starter.layout),
        "SERVER_ENCRYPTION_MASTER_KEYSET_FILE": str(folder / "master.key"),
        "SERVER_ENCRYPTION_JWT_PRIVATE_KEYSET_FILE": str(folder / "private.key"),
        "SERVER_ENCRYPTION_JWT_PUBLIC_KEYSET_FILE": str(folder / "public.key"),
        "SERVER_AUTH_COOKIE_SECRETS": starter.state.keys.cookies,
        "SERVER_URL": at["api"],
        "SERVER_PORT": str(ports["api"]),
        "SERVER_GRPC_PORT": str(ports["grpc"]),
        "SERVER_GRPC_BROADCAST_ADDRESS": at["grpc"],
        "SERVER_INTERNAL_CLIENT_INTERNAL_GRPC_BROADCAST_ADDRESS": at["grpc"],
    }
