"""Read what is known of a run that goes on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scythe.engine.lookup import answered
from scythe.engine.run_tasks import RunTasks
from scythe.runs.ending import run_place
from scythe.scatter.known_leaves import KnownLeaves
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


def known_table(store: Store, layout: RunLayout, name: str) -> pa.Table | None:
    """Make a table of those leaves of a run that are over; None where it has no such table yet."""
    import pyarrow.parquet as pq

    run = run_place(store, layout)
    status = run.status()
    tasks = RunTasks(layout.experiment_id, status.started if status else 0.0)
    with tempfile.TemporaryDirectory(prefix="scythe-partial-") as folder:
        leaves = KnownLeaves(run, Path(folder))
        leaves.add_nodes()
        with answered():
            for state in ("COMPLETED", "FAILED"):
                for page in tasks.leaf_ends((state,), payloads=True):
                    leaves.add_ends(page)
        if name not in leaves.names:
            leaves.add_none()
        if name not in leaves.names:
            return None
        file = Path(folder) / "table.pq"
        leaves.write(name, file)
        return pq.read_table(file)
