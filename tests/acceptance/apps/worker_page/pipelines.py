# ruff: noqa: I001 - as on the page
from scythe.worker import ScytheWorkerConfig
from my_workflows import my_pipeline_workflow

config = ScytheWorkerConfig()
config.start(additional_workflows=[my_pipeline_workflow])
