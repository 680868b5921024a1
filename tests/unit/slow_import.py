"""Takes longer to import than its leaf may run."""

from __future__ import annotations

import time

from local_experiments import Task, Text

from scythe.registry import ExperimentRegistry

time.sleep(1.0)


@ExperimentRegistry.Register()
def imported_slowly(spec: Task) -> Text:
    return Text(text="done")
