"""Fixtures of the tests on real services: unique names, and runs that are ended again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scythe.experiments import BaseExperiment
from scythe.semver import SemVer
from scythe.settings import store_config
from scythe.storage.store import Store, open_store
from tests.acceptance.running import load_app

APP = str(Path(__file__).parent / "app")


@pytest.fixture
def store(stack: dict[str, str]) -> Store:
    """The bucket of the stack."""
    return open_store(store_config())


@pytest.fixture
def folder(store: Store) -> Iterator[str]:
    """A folder of the bucket for one test, below the bucket's prefix and without it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    for key in list(store.list_keys(f"{store.config.prefix}/{name}")):
        store.delete(key)


@pytest.fixture
def app(stack: dict[str, str]) -> Any:
    """The module of the app whose worker the tests start."""
    return load_app(APP)


@pytest.fixture
def start(app: Any, folder: str) -> Callable[..., tuple[Any, Any]]:
    """Allocate a run whose specs are given as dicts."""

    def allocate(specs: Any, runnable: Any = None, **options: Any) -> tuple[Any, Any]:
        experiment: Any = BaseExperiment(runnable=runnable or app.work, run_name=folder)
        version = options.pop("version", SemVer(major=1))
        return experiment.allocate(specs, version=version, **options)

    return allocate


@pytest.fixture
def second_bucket(store: Store) -> Iterator[Store]:
    """Another bucket on the same server."""
    from dataclasses import replace

    name = f"second-{uuid.uuid4().hex[:12]}"
    store.client.create_bucket(Bucket=name)
    other = open_store(replace(store.config, bucket=name))
    yield other
    for key in list(other.list_keys("")):
        other.delete(key)
    store.client.delete_bucket(Bucket=name)


@pytest.fixture
def ended(stack: dict[str, str]) -> Iterator[Callable[[Any], Any]]:
    """Marks what `allocate` gave as a run that no worker takes: it is cancelled after the test."""
    from scythe.engine.client import cancel_run

    references: list[Any] = []

    def mark(allocated: Any) -> Any:
        references.append(allocated[1])
        return allocated

    yield mark
    for reference in references:
        cancel_run(reference.workflow_run_id)
