"""What runs on Ray nodes, without Ray."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from scythe_ray.record import leaf_folder
from scythe_ray.remote import ControlActor, this_driver


@pytest.mark.parametrize("is_last", [False, True])
def test_an_actor_that_only_removes_leaves_nothing_where_its_driver_does_not_wait(
    tmp_path: Path, is_last: bool
) -> None:
    driver = this_driver("driver", str(tmp_path), None)
    folder = leaf_folder(driver.session_dir, driver.driver_id)
    actor = ControlActor(pickle.dumps(driver), is_last)
    assert folder.exists() is not is_last  # the others note what the next one must know
    actor.close()
    assert not folder.exists()
