"""This process as a driver of Ray: how it leaves a cluster."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest

pytest.importorskip("ray")

from tests.integration.test_ray_loss import says

LEFT = """
import sys, threading
from scythe_ray.cluster import driver

driver.import_ray()
import ray

driver.connect(60.0, address="local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1])
references = [ray.put(number) for number in range(10_000)]
leaving = threading.Thread(target=driver.leave)
leaving.start()
while leaving.is_alive():
    references.pop()
    leaving.join(0.001)
print("left", len(references) > 0, ray.is_initialized())
"""


def test_references_that_are_dropped_while_it_leaves_do_not_end_the_worker() -> None:
    """The garbage collector drops some, at any time; Ray ends who tells it of one then."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**given, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with tempfile.TemporaryDirectory(prefix="sd-", ignore_cleanup_errors=True) as folder:
        says([sys.executable, "-c", LEFT, folder], environment, ["left True False"])
