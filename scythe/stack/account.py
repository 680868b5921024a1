"""Who runs PostgreSQL when the stack is started by root."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from scythe.errors import StackError
from scythe.stack.paths import is_root, private_folder, shared_root_folder

_NAMES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """An ordinary user.

    Attributes:
        uid: Number of the user.
        gid: Number of the user's main group.
    """

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


def give_folder(path: Path, account: Account | None) -> None:
    """Create a folder that only one user (and root) can enter.

    Args:
        path: The folder; an existing one is kept.
        account: Whose it is; None is this user.

    Raises:
        StackError: It cannot be created or handed over.
    """
    if account is None:
        private_folder(path)
        return
    try:
        # That user must get through, and nobody needs to list what is in there.
        shared = shared_root_folder()
        shared.mkdir(parents=True, exist_ok=True)
        shared.chmod(0o711)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        os.chown(path, account.uid, account.gid)
    except OSError as err:
        raise StackError(f"The folder {path} cannot be used: {err.strerror or err}.") from err


def reachable(path: Path, account: Account) -> bool:
    """Return whether a user can enter a folder and use what is in it.

    Args:
        path: An existing file or folder, absolute.
        account: The user.
    """
    return all(_allows(item, account) for item in (path, *path.resolve().parents))


def _allows(path: Path, account: Account) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def copy_for_all(sources: list[Path], target: Path) -> None:
    """Copy folders to a place that every user can read, whole or not at all.

    Args:
        sources: The folders to copy.
        target: The folder that then holds them, under their names.
    """
    if target.exists():
        return
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o755, parents=True)
    for source in sources:
        shutil.copytree(source, partial / source.name, symlinks=True)
    for item in (partial, *partial.rglob("*")):
        if not item.is_symlink():
            mode = item.stat().st_mode
            item.chmod(mode | (0o555 if mode & stat.S_IXUSR or item.is_dir() else 0o444))
    try:
        partial.rename(target)
    except OSError:
        # Somebody else was faster.
        shutil.rmtree(partial, ignore_errors=True)
        if not target.exists():
            raise
