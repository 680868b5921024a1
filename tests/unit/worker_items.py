"""Experiments and Hatchet workflows that the tests of the worker serve, defined at module level."""

from __future__ import annotations

from typing import Any

from hatchet_sdk import Context, DurableContext

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.experiment import Experiment
from scythe.hatchet import hatchet
from scythe.options import ExperimentOptions


class ItemInput(ExperimentInputSpec):
    x: float


class ItemOutput(ExperimentOutputSpec):
    y: float


def plain(input_spec: ItemInput) -> ItemOutput:
    return ItemOutput(y=input_spec.x)


def tripled(input_spec: ItemInput) -> ItemOutput:
    return ItemOutput(y=3 * input_spec.x)


named = Experiment(tripled, "another_name", ExperimentOptions(retries=7))


@hatchet.task(name="worker_items_task")
def task(payload: Any, ctx: Context) -> dict[str, Any]:
    return {}


@hatchet.durable_task(name="worker_items_durable")
async def durable(payload: Any, ctx: DurableContext) -> dict[str, Any]:
    return {}


pipeline = hatchet.workflow(name="worker_items_pipeline")


@pipeline.task()
def first_step(payload: Any, ctx: Context) -> dict[str, Any]:
    return {}
