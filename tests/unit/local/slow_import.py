"""Takes longer to import than its leaf may run."""

from __future__ import annotations

import time

from scythe.registry import ExperimentRegistry
from tests.unit.local.experiments import Task, Text

time.sleep(1.0)


@ExperimentRegistry.Register()
def imported_slowly(spec: Task) -> Text:
    return Text(text="done")
