"""Where the engine and the bucket are: the user's own variables, or the local stack that runs.

A user with their own Hatchet and S3 sets the usual variables and never meets the local stack.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from scythe.errors import EngineError, SettingsError
from scythe.processes.proxies import keep_loopback_direct

TOKEN = "HATCHET_CLIENT_TOKEN"  # noqa: S105 - the name of a variable
_DOTENV_FILES = (".env", ".env.hatchet", ".env.dev", ".env.local")  # those that the SDK reads
_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")
_STORE_NAMES = {
    "AWS_ENDPOINT_URL_S3": "SCYTHE_STORAGE_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID": "SCYTHE_STORAGE_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "SCYTHE_STORAGE_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION": "SCYTHE_STORAGE_REGION",
}


def refused_token(address: str = "") -> str:
    """Say that the engine does not take the token, and what to do."""
    return (
        f"The Hatchet engine{address and f' at {address}'} refuses the token: make a new one, in "
        f"the engine's dashboard or with `hatchet-admin token create`, and set {TOKEN} to it."
    )


def token_is_given() -> bool:
    """Return whether the environment, or a dotenv file that Hatchet reads, has a token."""
    return engine_setting(TOKEN) is not None


def engine_setting(name: str) -> str | None:
    """Return a variable of Hatchet's from the environment, or from a dotenv file that it reads."""
    if os.environ.get(name):
        return os.environ[name]
    from dotenv import dotenv_values

    files = [Path(one) for one in reversed(_DOTENV_FILES)]  # the SDK takes the last one
    return next((v for one in files if one.is_file() and (v := dotenv_values(one).get(name))), None)


def prepare_environment() -> str | None:
    """Point this process, and those that it starts, at the local stack if that is what is meant.

    Without a Hatchet token the engine of the running local stack is used, and without a bucket its
    S3 server. The user's own AWS keys are not replaced. Says so in one line on standard error.

    Returns:
        The address of the local stack when it is used, else None.
    """
    keep_loopback_direct()
    if os.environ.get("SCYTHE_LOCAL_STACK"):
        return os.environ["SCYTHE_LOCAL_STACK"]
    if token_is_given():
        return None
    from scythe.stack import running

    stack = running()
    if stack is None:
        return None
    own_bucket = bool(os.environ.get("SCYTHE_STORAGE_BUCKET"))
    own_keys = any(os.environ.get(name) for name in _AWS_KEYS)
    for name, value in stack.env.items():
        if name.startswith("HATCHET_"):
            os.environ[name] = value
        elif not own_bucket:
            os.environ[_STORE_NAMES.get(name, name)] = value
            if name.startswith("AWS_") and not own_keys:
                os.environ[name] = value
    os.environ["SCYTHE_LOCAL_STACK"] = stack.api_url
    print(  # noqa: T201 - the one line that the user is promised
        f"scythe: no {TOKEN} is set, using the local stack at {stack.api_url} ({stack.home})",
        file=sys.stderr,
    )
    has_client = getattr(sys.modules.get("boto3"), "DEFAULT_SESSION", None) is not None
    if has_client and not (own_bucket or own_keys):
        print(  # noqa: T201 - or the user finds out from a timeout
            "scythe: clients of boto3 that were made before this line know nothing of the local "
            'stack: run `eval "$(scythe dev env)"` before the script.',
            file=sys.stderr,
        )
    return stack.api_url


def check_installation(warn: Callable[[str], object] | None = None) -> None:
    """Check that the package `scythe` is this one, and not scythe-engine.

    Args:
        warn: Takes a sentence where scythe-engine is installed as well, and this one is in place.

    Raises:
        SettingsError: scythe-engine was installed over it.
    """
    from importlib import import_module

    # By name: the package itself leads to modules that import this one.
    is_ours = hasattr(import_module("scythe"), "DISTRIBUTION")
    if is_ours and warn is None:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        theirs = f"scythe-engine {version('scythe-engine')}"
    except PackageNotFoundError:
        theirs = "" if is_ours else "Another package"
    repair = "run `pip uninstall scythe-engine`, then `pip install --force-reinstall scythe-ray`"
    if not is_ours:
        raise SettingsError(f"{theirs} was installed over the folder `scythe`: {repair}.")
    if theirs and warn is not None:
        warn(f"{theirs} is installed too, and pip lets each overwrite the other: {repair}.")


def require_engine() -> None:
    """Prepare the environment, and see that it names an engine.

    Raises:
        EngineError: There is no token, and no local stack runs.
    """
    if prepare_environment() is None and not token_is_given():
        raise EngineError(
            f"{TOKEN} is not set and no local stack runs: set it to a token of your engine, or "
            "start the local stack with `scythe dev`."
        )
