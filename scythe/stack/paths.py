"""Where a local stack keeps its files."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from scythe.errors import StackError

HOME_VARIABLE = "SCYTHE_DEV_HOME"
HOST = "127.0.0.1"
POSTGRES, ENGINE, S3 = PARTS = ("postgres", "engine", "s3")
_SOCKET_PATH_LIMIT = 100  # bytes; the kernel's is 104 (macOS) or 108 (Linux), with a name in it
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/-]+")
_ROOT_BASE = Path("/var/lib/scythe")


@dataclass(frozen=True)
class Layout:
    """The files of the stack in one data folder.

    Attributes:
        home: The data folder, absolute and without symbolic links.
    """

    home: Path

    @property
    def state_file(self) -> Path:
        """Ports, processes and what has been prepared."""
        return self.home / "state.json"

    @property
    def secrets_file(self) -> Path:
        """Keys and the client token (mode 0600)."""
        return self.home / "secrets.json"

    @property
    def lock_file(self) -> Path:
        """Held by whoever starts or stops the stack."""
        return self.home / "lock"

    @property
    def logs(self) -> Path:
        """The folder of the log files."""
        return self.home / "logs"

    @property
    def engine(self) -> Path:
        """The engine's configuration folder: its keys."""
        return self.home / "engine"

    @property
    def s3(self) -> Path:
        """The S3 server's configuration and objects."""
        return self.home / "s3"

    @property
    def postgres(self) -> Path:
        """The folder that holds the database.

        PostgreSQL refuses to run as root. Root's database belongs to an ordinary user, who could
        not reach it inside a private data folder.
        """
        return _ROOT_BASE / self.key if is_root() else self.home / "postgres"

    @property
    def sockets(self) -> Path:
        """The folder of the Unix sockets: short, whatever the data folder is called."""
        if is_root():
            return self.postgres / "run"
        inside = self.home / "run"
        short = len(os.fsencode(inside / ".s.PGSQL.5432.lock")) < _SOCKET_PATH_LIMIT
        # Programs read this path in configuration files and addresses, with quoting of their own.
        if short and _PLAIN_PATH.fullmatch(str(inside)):
            return inside
        import tempfile

        return Path(tempfile.gettempdir()) / f"scythe-{os.getuid()}-{self.key}"

    @property
    def key(self) -> str:
        """A short name for this data folder that no other one has."""
        return hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]

    def log(self, part: str) -> Path:
        """Return the log file of a part.

        Args:
            part: One of `PARTS`.
        """
        return self.logs / f"{part}.log"


def is_root() -> bool:
    """Return whether this process runs as root."""
    return os.geteuid() == 0


def shared_root_folder() -> Path:
    """Return the folder for files that PostgreSQL's user must read when the stack runs as root."""
    return _ROOT_BASE


def default_home() -> Path:
    """Return `SCYTHE_DEV_HOME`, else `scythe/dev` in the user's data folder."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given).expanduser().resolve()
    base = os.environ.get("XDG_DATA_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "share"
    return root / "scythe" / "dev"


def cache_root() -> Path:
    """Return Scythe's folder in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "scythe"


def layout_of(home: Path | str | None = None) -> Layout:
    """Return the layout of a data folder.

    Args:
        home: The data folder; by default the user's own.

    Raises:
        StackError: This system cannot run the stack.
    """
    if sys.platform == "win32":
        raise StackError(
            "The local stack runs on Linux and macOS. On Windows use WSL, or set "
            "HATCHET_CLIENT_TOKEN and the S3 variables for servers elsewhere."
        )
    chosen = default_home() if home is None else Path(home).expanduser()
    return Layout(chosen.resolve())


def private_folder(path: Path) -> None:
    """Create a folder that only this user can enter, or make an own one so.

    Raises:
        StackError: The path is not a folder of this user.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        # A link, or a folder of somebody else (in a shared temporary folder), would hand our
        # files to its owner.
        if path.is_symlink() or found.st_uid != os.geteuid():
            raise StackError(
                f"{path} belongs to somebody else or is a symbolic link. Remove it, or choose "
                f"another folder with {HOME_VARIABLE}."
            )
        path.chmod(0o700)
    except OSError as err:
        raise StackError(
            f"The folder {path} cannot be used: {err.strerror or err}. Choose another data "
            f"folder with {HOME_VARIABLE}."
        ) from err
