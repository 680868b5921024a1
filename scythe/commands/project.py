"""The command that makes a small project: `init`."""

from __future__ import annotations

import json
import re
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from scythe import DISTRIBUTION
from scythe.commands import show
from scythe.commands.base import Json, add
from scythe.errors import SettingsError

_SUFFIX = ".txt"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    add(app, init)


def init(
    folder: Annotated[Path, typer.Argument(help="Where; it is made if need be.")] = Path(),
    json: Json = False,
) -> None:
    """Write a small project that runs at once."""
    values = {"name": _project_name(folder), "requirement": _requirement()}
    made = {
        folder / item.name.removesuffix(_SUFFIX): _filled(item.read_text("utf-8"), values)
        for item in files("scythe.commands").joinpath("project_files").iterdir()
    }
    there = sorted(path.name for path in made if path.exists() or path.is_symlink())
    if there:
        raise SettingsError(
            f"{folder.absolute()} has {', '.join(there)} already, and nothing is overwritten: "
            "give another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Cannot write to {folder.absolute()}: {error.strerror}.") from error
    if json:
        show.line(show.as_json({"folder": str(folder), "files": sorted(p.name for p in made)}))
        return
    show.line(f"Made {folder.absolute()}. Next:")
    for command in ("scythe dev", "python main.py", "python allocate.py  # in a second terminal"):
        show.line(f"  {command}")


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _project_name(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")
    return name or "experiments"


def _requirement() -> str:
    """Return what pip is to install for the Scythe that runs here."""
    found = distribution(DISTRIBUTION)
    origin = found.read_text("direct_url.json")
    if not origin:
        return f"{DISTRIBUTION}=={found.version}"
    place: dict[str, Any] = json.loads(origin)
    vcs = place.get("vcs_info")
    if vcs:
        return f"{DISTRIBUTION} @ {vcs['vcs']}+{place['url']}@{vcs['commit_id']}"
    return f"{DISTRIBUTION} @ {place['url']}"
