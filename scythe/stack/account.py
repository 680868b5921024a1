"""Who runs PostgreSQL when the stack is started by root."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from scythe.errors import StackError
from scythe.stack.paths import (
    Layout,
    check_parents,
    is_root,
    make_socket_folder,
    private_folder,
    shared_root_folder,
)

_NAMES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """An ordinary user: its number and that of its main group."""

    uid: int
    gid: int


def database_account() -> Account | None:
    """Return the ordinary user who runs PostgreSQL for root, or None for everybody else.

    Raises:
        StackError: There is no such user.
    """
    if not is_root():
        return None
    for name in _NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise StackError(
        f"PostgreSQL refuses to run as root, and there is no user {' or '.join(_NAMES)} to run it "
        "as. Run `scythe dev` as an ordinary user."
    )


def make_database_folders(layout: Layout, account: Account | None) -> None:
    """Make the folders that hold the database and its sockets.

    For root, what is above them is root's alone: the account can change what is in its two
    folders, and not which folders they are. Root writes nothing in them.

    Raises:
        StackError: They cannot be made or belong to somebody else.
    """
    if account is None:
        private_folder(layout.postgres)
        make_socket_folder(layout)
        return
    open_root_folder(shared_root_folder())
    open_root_folder(layout.postgres)
    give_folder(layout.sockets, account)


def open_root_folder(path: Path) -> None:
    """Make a folder of root that others can pass and nobody else can change."""
    check_parents(path, "Run `scythe dev` as an ordinary user.")
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise StackError(f"{path} is not a folder. Remove it, then run `scythe dev` again.")
    # Earlier versions gave it away; nobody but root can rename it, so it is still the same.
    os.chown(path, 0, 0, follow_symlinks=False)
    path.chmod(0o711)


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


def reachable(path: Path, account: Account) -> bool:
    """Return whether a user can enter an existing folder and use what is in it."""
    return all(_allows(item, account) for item in (path, *path.resolve().parents))


def _allows(path: Path, account: Account) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def copy_for_all(sources: list[Path], target: Path) -> None:
    """Copy folders to a place that every user can read, whole or not at all."""
    if target.exists():
        return
    open_root_folder(target.parent)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for source in sources:
            shutil.copytree(source, partial / source.name, symlinks=True)
        for item in (partial, *partial.rglob("*")):
            if not item.is_symlink():
                mode = item.stat().st_mode & 0o755
                item.chmod(mode | (0o555 if mode & stat.S_IXUSR or item.is_dir() else 0o444))
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.exists():  # else somebody else was faster
            raise
