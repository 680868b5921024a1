"""A pipeline of two steps, and a single task, as they are written for Hatchet."""

from typing import Any

from hatchet_sdk import Context, EmptyModel

from scythe.hatchet import hatchet
from scythe.registry import ExperimentRegistry

my_pipeline_workflow = ExperimentRegistry.Include(hatchet.workflow(name="page_pipeline"))


@my_pipeline_workflow.task()
def first(payload: EmptyModel, ctx: Context) -> dict[str, Any]:
    return {"number": 20}


@my_pipeline_workflow.task(parents=[first])
def second(payload: EmptyModel, ctx: Context) -> dict[str, Any]:
    return {"number": ctx.task_output(first)["number"] + 1}


@ExperimentRegistry.Include
@hatchet.task(name="page_task")
def my_task(payload: EmptyModel, ctx: Context) -> dict[str, Any]:
    return {"number": 7}
