"""The connection of a client to the local stack."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from scythe.errors import StackError
from scythe.stack.paths import HOST, layout_of
from scythe.stack.state import read_state

BUCKET = "scythe"
REGION = "us-east-1"


@dataclass(frozen=True)
class StackConnection:
    """A running local stack.

    Attributes:
        env: The environment variables that clients read. They hold secrets.
        home: The data folder.
        api_url: Address of the engine's REST API.
    """

    env: dict[str, str] = field(repr=False)
    home: Path
    api_url: str


def running(home: Path | None = None) -> StackConnection | None:
    """Return the local stack if it runs, else None. Starts nothing and takes milliseconds.

    Args:
        home: The data folder; by default `SCYTHE_DEV_HOME`, else the user's own.
    """
    try:
        layout = layout_of(home)
        state = read_state(layout)
        if state is None or not state.runs():
            return None
        at = addresses(state.ports)
        keys = state.keys
        if keys.token_for != token_addresses(state.ports):
            return None
        return StackConnection(
            env={
                "HATCHET_CLIENT_TOKEN": keys.token,
                "HATCHET_CLIENT_TLS_STRATEGY": "none",
                "HATCHET_CLIENT_HOST_PORT": at["grpc"],
                "HATCHET_CLIENT_SERVER_URL": at["api"],
                "AWS_ENDPOINT_URL_S3": at["s3"],
                "AWS_ACCESS_KEY_ID": keys.access_key,
                "AWS_SECRET_ACCESS_KEY": keys.secret_key,
                "AWS_DEFAULT_REGION": REGION,
                "SCYTHE_STORAGE_BUCKET": BUCKET,
            },
            home=layout.home,
            api_url=at["api"],
        )
    except (StackError, KeyError):
        # Whoever asks has other ways to go on; `scythe dev status` says what is wrong.
        return None


def addresses(ports: dict[str, int]) -> dict[str, str]:
    """Return the addresses of the ports that are chosen: URLs, and for `grpc` host and port."""
    found = {name: f"{HOST}:{port}" for name, port in ports.items()}
    return {name: at if name == "grpc" else f"http://{at}" for name, at in found.items()}


def token_addresses(ports: dict[str, int]) -> str:
    """Return the addresses that a client token holds: with others it is of no use."""
    found = addresses(ports)
    return f"{found['api']} {found['grpc']}"
