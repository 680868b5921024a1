"""Which Hatchet workers are meant by the name of a worker."""

from __future__ import annotations

import pytest

from scythe.commands.workers import named_workers
from scythe.engine.lookup import ConnectedWorker
from scythe.errors import SettingsError
from scythe.scatter.models import NODE_TASK


def worker(name: str, *tasks: str) -> ConnectedWorker:
    return ConnectedWorker(name, frozenset(tasks), {})


LAB = [
    worker("lab-7", "roof"),
    worker("lab-7--fan", NODE_TASK),
    worker("lab-7--gpu", "train"),
    worker("lab-71", "roof"),
    worker("scatter", NODE_TASK),
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lab-7", ["lab-7", "lab-7--gpu"]),  # its leaves of all classes, not its scatter nodes
        ("lab-7--gpu", ["lab-7--gpu"]),
        ("lab-7--fan", ["lab-7--fan"]),
        ("lab-71", ["lab-71"]),
        ("scatter", ["scatter"]),
    ],
)
def test_the_workers_of_a_name(name: str, meant: list[str]) -> None:
    assert [one.name for one in named_workers(name, LAB)] == meant


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match=r"No worker 'lab' is connected. There are lab-7, lab-"):
        named_workers("lab", LAB)
    with pytest.raises(SettingsError, match="None is: python main.py"):
        named_workers("lab-7", [])
