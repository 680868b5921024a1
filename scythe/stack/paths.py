"""Where a local stack keeps its files, and which folders it may use."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from scythe.errors import StackError

HOME_VARIABLE = "SCYTHE_DEV_HOME"
HOST = "127.0.0.1"
POSTGRES, ENGINE, S3 = PARTS = ("postgres", "engine", "s3")
_SOCKET_PATH_LIMIT = 100  # bytes; the kernel's is 104 (macOS) or 108 (Linux), with a name in it
_ROOT_BASE = Path("/var/lib/scythe")


class Layout:
    """The files of the stack in one data folder.

    PostgreSQL refuses to run as root. Root's database belongs to an ordinary user, who could not
    reach it inside a private data folder, and who can change nothing on the way to it.

    Args:
        home: The data folder, absolute and without symbolic links.

    Attributes:
        marker: Says that the folder is Scythe's; a lock of whoever starts or stops the stack.
        state_file: Ports, processes, keys and the client token (mode 0600).
        logs: The folder of the log files.
        engine: The engine's keys, and its working directory.
        s3: The objects, and the S3 server's working directory.
        postgres: The folder of `data` and, for root, the sockets; in them all is PostgreSQL's.
        data: The folder of the database's files.
        socket_link: The folder of the Unix sockets, or a link to it if its path would be too long.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.marker = home / ".scythe-stack"
        self.state_file = home / "state.json"
        self.logs = home / "logs"
        self.engine = home / "engine"
        self.s3 = home / "s3"
        key = sha256(os.fsencode(home)).hexdigest()[:12]
        self.postgres = _ROOT_BASE / key if is_root() else home / "postgres"
        self.data = self.postgres / "data"
        self.socket_link = (self.postgres if is_root() else home) / "run"

    @property
    def sockets(self) -> Path:
        """The folder of the Unix sockets."""
        return self.socket_link.readlink() if self.socket_link.is_symlink() else self.socket_link

    @property
    def socket(self) -> Path:
        """PostgreSQL's Unix socket."""
        return self.sockets / ".s.PGSQL.5432"

    def folder(self, part: str) -> Path:
        """Return the folder in which a part, or what prepares it, works."""
        return {POSTGRES: self.postgres, ENGINE: self.engine, S3: self.s3}[part]

    def log(self, part: str) -> Path:
        """Return the log file of a part."""
        return self.logs / f"{part}.log"


def make_socket_folder(layout: Layout) -> None:
    """Make the folder of the Unix sockets, with a short path whatever the data folder is called."""
    link = layout.socket_link
    # Programs read a comma in the path as the end of it.
    if len(os.fsencode(link / ".s.PGSQL.5432.lock")) < _SOCKET_PATH_LIMIT and "," not in str(link):
        private_folder(link)
    elif not link.is_symlink() or not link.is_dir():
        # A new name each time: nobody can be there before, and what a cleaner took is made again.
        link.unlink(missing_ok=True)
        link.symlink_to(tempfile.mkdtemp(prefix="scythe-"))
    else:
        private_folder(layout.sockets)


def is_root() -> bool:
    """Return whether this process runs as root."""
    return os.geteuid() == 0


def default_home() -> Path:
    """Return `SCYTHE_DEV_HOME`, else `scythe/dev` in the user's data folder."""
    from platformdirs import user_data_path

    return _chosen(HOME_VARIABLE) or user_data_path("scythe") / "dev"


def cache_root() -> Path:
    """Return `SCYTHE_CACHE_DIR`, else Scythe's folder in the user's cache folder."""
    from platformdirs import user_cache_path

    return _chosen("SCYTHE_CACHE_DIR") or user_cache_path("scythe").resolve()


def _chosen(variable: str) -> Path | None:
    given = os.environ.get(variable)
    return Path(given).expanduser().resolve() if given else None


def layout_of(home: Path | str | None = None) -> Layout:
    """Return the layout of a data folder, by default the user's own.

    Raises:
        StackError: This system cannot run the stack.
    """
    if sys.platform == "win32":
        raise StackError(
            "The local stack runs on Linux and macOS. On Windows use WSL, or set "
            "HATCHET_CLIENT_TOKEN and the S3 variables for servers elsewhere."
        )
    return Layout((default_home() if home is None else Path(home).expanduser()).resolve())


def private_folder(
    path: Path, *, way_out: str = f"Choose another with {HOME_VARIABLE}.", mode: int = 0o700
) -> None:
    """Create a folder that only this user can change, and by default enter, or make it so.

    Raises:
        StackError: The path is not a folder of this user, or another user can replace it.
    """
    check_parents(path, way_out)
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except FileExistsError:
        raise StackError(f"The folder {path} cannot be used: a file is there. {way_out}") from None
    found = path.lstat()
    # A link, or a folder of somebody else, would hand our files to its owner.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StackError(f"{path} belongs to somebody else or is a symbolic link. {way_out}")
    path.chmod(mode)


def check_parents(path: Path, way_out: str) -> None:
    """Refuse a path at which another user could put something else while it is used."""
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}  # in a container, / may not be root's
    for parent in path.resolve().parents:
        try:
            found = parent.stat()
        except FileNotFoundError:
            continue
        open_to_all = found.st_mode & stat.S_IWOTH
        open_to_others = found.st_mode & stat.S_IWGRP and found.st_gid not in {0, os.getegid()}
        if found.st_uid not in trusted or (
            (open_to_all or open_to_others) and not found.st_mode & stat.S_ISVTX
        ):
            raise StackError(f"{path} is not safe: other users can change {parent}. {way_out}")
