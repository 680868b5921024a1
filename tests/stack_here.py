"""The stack that a session of tests runs on: its own, or one that is handed on to it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIVEN = "SCYTHE_TEST_STACK_HOME"  # a stack that runs, or is started, in this folder and stays
NAMESPACE = "SCYTHE_TEST_NAMESPACE"  # keeps sessions apart that share one


@contextmanager
def stack_here() -> Iterator[Path]:
    """Yield the folder of a running local stack: PostgreSQL, engine, S3, bucket, token.

    The one in `SCYTHE_TEST_STACK_HOME` is used and left running; else one is started in a folder
    of its own, and removed afterwards.
    """
    from scythe.stack import reset, up

    given = os.environ.get(GIVEN)
    home = Path(given) if given else Path(tempfile.mkdtemp(prefix="scythe-test-", dir="/tmp"))
    try:
        up(home, report=print)
        yield home
    finally:
        if not given:
            reset(home)
            shutil.rmtree(home, ignore_errors=True)


def environment_of(home: Path) -> dict[str, str]:
    """Return the environment that points at a running stack, as this session uses it."""
    from scythe.stack import running

    found = running(home)
    assert found is not None
    own = os.environ.get(NAMESPACE)
    # Without one, a scatter node of either session could be taken by a worker of the other.
    return {**found.env, **({"HATCHET_CLIENT_NAMESPACE": own} if own else {})}
