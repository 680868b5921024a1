"""Reads `SCYTHE_RAY_RUNTIME_ENV`: the code and environment that Ray takes to its nodes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from scythe.errors import SettingsError

NAME = "SCYTHE_RAY_RUNTIME_ENV"
_EXAMPLE = '{"working_dir": "."}'


@dataclass(frozen=True, slots=True)
class Shipment:
    """The code and environment that Ray takes to its nodes.

    Attributes:
        environment: Ray's `runtime_env`, with absolute paths; empty for nothing.
        folder: The local folder that Ray copies to its nodes as the working directory.
    """

    environment: dict[str, Any] = field(default_factory=dict[str, Any])
    folder: str | None = None

    def options(self) -> dict[str, Any]:
        """Return it as arguments of `ray.init`, valid for all tasks of this process."""
        return {"runtime_env": self.environment} if self.environment else {}


def read_runtime_env(text: str | None) -> Shipment:
    """Parse the setting: a JSON object, or the path of a JSON or YAML file with one.

    Raises:
        SettingsError: It is neither, names a missing file, or Ray refuses it.
    """
    if not text or not text.strip():
        return Shipment()
    environment = _mapping(text.strip())
    if "working_dir" in environment:
        environment["working_dir"] = _local(environment["working_dir"], "working_dir")
    if isinstance(environment.get("py_modules"), list):
        environment["py_modules"] = [
            _local(one, "py_modules") for one in cast("list[Any]", environment["py_modules"])
        ]
    _check(environment)
    folder = environment.get("working_dir")
    return Shipment(environment, folder if folder and Path(folder).is_dir() else None)


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text.startswith("{") else _read_file(text)
    except ValueError as error:
        raise SettingsError(
            f"{NAME} is not a JSON object ({error}). Write it like '{_EXAMPLE}', or name a JSON or "
            "YAML file."
        ) from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in cast("Any", value)):
        raise SettingsError(
            f"{NAME} must be an object with Ray's names for its parts, such as '{_EXAMPLE}', and "
            f"holds {type(value).__name__}: correct it, or unset it."
        )
    return dict(cast("dict[str, Any]", value))


def _read_file(path: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(Path(path).expanduser().read_text())  # JSON is YAML as well
    except OSError as error:
        raise SettingsError(
            f"{NAME}={path} is neither a JSON object nor a readable file ({error.strerror}): "
            f"write it like '{_EXAMPLE}', or correct the path."
        ) from error
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise SettingsError(f"{NAME}: {path} is neither JSON nor YAML ({line}).") from error


def _local(value: Any, part: str) -> Any:
    """Return a local path as absolute; leave a URI unchanged."""
    if not isinstance(value, str) or "://" in value:
        return value
    path = Path(value).expanduser().absolute()
    if not path.exists():
        raise SettingsError(
            f"{NAME}: {part} is {value!r}, and {path} is not there: correct the path, or start the "
            "worker in the folder that it is relative to."
        )
    return str(path.resolve())


def _check(environment: dict[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv

    known: set[str] = set(RuntimeEnv.known_fields)
    unknown = sorted(environment.keys() - known)
    if unknown:
        parts = ", ".join(sorted(name for name in known if not name.startswith("_")))
        raise SettingsError(f"{NAME}: Ray knows no {', '.join(unknown)}: it takes {parts}.")
    # Ray checks paths only once it is connected.
    paths = ("working_dir", "py_modules")
    try:
        RuntimeEnv(**{name: part for name, part in environment.items() if name not in paths})
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{NAME}: {' '.join(str(error).split())}") from error
