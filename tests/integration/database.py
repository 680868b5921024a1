"""The engine's database, asked and broken from outside."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from scythe.stack.account import database_account
from scythe.stack.paths import layout_of
from scythe.stack.programs import postgres_folders

_LOSE = """
CREATE OR REPLACE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.payload->>'id' = '{kind}' THEN NEW.status := 'ASSIGNED'; END IF; RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER lose BEFORE INSERT ON "MessageQueueItem"
FOR EACH ROW EXECUTE FUNCTION lose()
"""
_LOST = """ FROM "MessageQueueItem" WHERE status = 'ASSIGNED' AND payload->>'id' = '{kind}'"""


def query(home: Path, sql: str) -> list[str]:
    """Ask the database."""
    account = database_account()
    folder = layout_of(home).sockets
    psql = postgres_folders()[0] / "pginstall" / "bin" / "psql"
    done = subprocess.run(
        [psql, "-X", "-A", "-t", "-h", folder, "-U", "postgres", "-d", "hatchet", "-c", sql],
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@contextmanager
def losing(home: Path, kind: str) -> Generator[Callable[[], int]]:
    """Lose all messages of a kind, as an engine does that is killed when it has just taken them.

    Args:
        home: The stack.
        kind: The kind; by `internal-event` the engine tells itself that a task is over.

    Yields:
        Counts those that were lost.
    """
    lost = _LOST.format(kind=kind)
    query(home, _LOSE.format(kind=kind))
    try:
        yield lambda: int(query(home, f"SELECT count(*){lost}")[0])
    finally:
        query(home, f"DROP FUNCTION lose() CASCADE; DELETE{lost}")
