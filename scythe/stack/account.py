"""Who runs PostgreSQL when the stack is started by root."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scythe.errors import StackError
from scythe.stack.paths import (
    Layout,
    check_parents,
    is_root,
    make_socket_folder,
    private_folder,
)

_NAMES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """An ordinary user: its number and that of its main group."""

    uid: int
    gid: int


def database_account() -> Account | None:
    """Return the ordinary user who runs PostgreSQL for root, or None for everybody else."""
    if not is_root():
        return None
    for name in _NAMES:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise StackError(
        f"PostgreSQL refuses to run as root, and there is no user {' or '.join(_NAMES)} to run it "
        "as. Run `scythe dev` as an ordinary user."
    )


def as_account(account: Account | None) -> dict[str, Any]:
    """Return what `subprocess` needs to run a program as an account."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def make_database_folders(layout: Layout, account: Account | None) -> None:
    """Make the folders that hold the database and its sockets.

    For root, what is above them is root's alone: the account can change what is in its two
    folders, and not which folders they are. Root writes nothing in them.
    """
    if account is None:
        private_folder(layout.postgres)
        make_socket_folder(layout)
        return
    way_out = "Remove it, or run `scythe dev` as an ordinary user."
    for folder in (layout.postgres.parent, layout.postgres):
        check_parents(folder, way_out)
        # Earlier versions gave it away; nobody but root can rename it, so it is still the same.
        if folder.exists():
            os.chown(folder, 0, 0, follow_symlinks=False)
        private_folder(folder, way_out=way_out, mode=0o711)
    give_folder(layout.sockets, account)


def give_folder(path: Path, account: Account | None) -> None:
    """Make a folder that only one account (and root) can enter, in a folder that is ours alone."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        owners = {os.geteuid()} | ({account.uid} if account else set())
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
            raise StackError(
                f"{path} is not a folder of PostgreSQL's account. Remove it, or start anew with "
                "`scythe dev reset`."
            ) from None
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def copy_for_all(sources: list[Path], target: Path) -> None:
    """Copy folders to a place that every user can read, whole or not at all."""
    if target.exists():
        return
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="copy-") as folder:
        partial = Path(folder, target.name)
        for source in sources:
            shutil.copytree(source, partial / source.name, symlinks=True)
        subprocess.run(["chmod", "-R", "go=rX", partial], check=True)
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():  # else somebody else was faster
                raise
