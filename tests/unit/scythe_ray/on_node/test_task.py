"""The code of Ray nodes, without Ray."""

from __future__ import annotations

import pickle
from pathlib import Path

from scythe.processes.ending import oom_kills
from scythe_ray.on_node.records import leaf_folder
from scythe_ray.on_node.task import NodeAgentActor, this_driver


def test_an_actor_whose_driver_does_not_wait_for_it_leaves_nothing(tmp_path: Path) -> None:
    """Ray may start it when the driver has removed all, and is about to go."""
    driver = this_driver("driver", str(tmp_path), None)
    actor = NodeAgentActor(pickle.dumps(driver), None)
    assert actor.find("a leaf") is None
    assert actor.report("a leaf") is None
    actor.forget("a leaf")
    assert not leaf_folder(driver.session_dir, driver.driver_id).exists()


def test_an_actor_goes_on_counting_where_the_one_before_it_stopped(tmp_path: Path) -> None:
    driver = pickle.dumps(this_driver("driver", str(tmp_path), None))
    before = NodeAgentActor(driver, None).kills()
    assert before == oom_kills()
    assert NodeAgentActor(driver, before - 1).kills() == before - 1
