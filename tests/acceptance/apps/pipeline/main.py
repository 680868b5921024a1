"""A pipeline: samples, then a fit for each of them; its steps run through `scatter_gather`."""

from functools import partial

import pandas as pd
from hatchet_sdk import Context, TriggerWorkflowOptions
from pydantic import BaseModel
from scythe.hatchet import hatchet
from scythe.scatter_gather import RecursionMap, ScatterGatherInput, scatter_gather
from scythe.settings import ScytheStorageSettings, timeout_settings
from scythe.utils.results import save_and_upload_parquets
from scythe.utils.s3 import s3_client
from scythe.worker import ScytheWorkerConfig

from experiments import FitInput, SampleInput, fit, sample


class PipelineInput(BaseModel):
    run: str
    n: int


class PipelineOutput(BaseModel):
    worst: float
    tables: list[str]


def payload(run: str, runnable, specs: list) -> ScatterGatherInput:
    storage = ScytheStorageSettings()
    experiment_id = f"{run}/{runnable.name}/v1.0.0/2026-01-02_03-04-05"
    frame = pd.DataFrame([spec.model_dump(mode="json") for spec in specs])
    uris = save_and_upload_parquets(
        collected_dfs={"specs": frame},
        s3=s3_client,
        bucket=storage.BUCKET,
        output_key_constructor=lambda name: f"{storage.BUCKET_PREFIX}/{experiment_id}/{name}.pq",
    )
    return ScatterGatherInput(
        experiment_id=experiment_id,
        task_name=runnable.name,
        specs_uri=uris["specs"],
        storage_settings=storage,
        recursion_map=RecursionMap(path=None, factor=2, max_depth=1),
        save_errors=True,
    )


@hatchet.task(
    name="pipeline",
    input_validator=PipelineInput,
    execution_timeout=timeout_settings.EXPERIMENT_EXECUTION,
)
async def pipeline(given: PipelineInput, context: Context) -> PipelineOutput:
    spec = partial(SampleInput, experiment_id="placeholder")
    specs = [spec(sort_index=i, r_value=i) for i in range(given.n)]
    options = TriggerWorkflowOptions(additional_metadata={"step": "sample", "run": given.run})
    samples = await scatter_gather.aio_run(payload(given.run, sample, specs), options=options)
    found = samples.to_gathered_experiment_runs().success.dataframes["scalars"].reset_index()
    fits = [
        FitInput(experiment_id="placeholder", sort_index=i, r_value=row.r_value, loss=row.loss)
        for i, row in enumerate(found.itertuples())
    ]
    item = scatter_gather.create_bulk_run_item(input=payload(given.run, fit, fits))
    (result,) = await scatter_gather.aio_run_many([item], return_exceptions=True)
    errors = result.to_gathered_experiment_runs().success.dataframes["scalars"]
    return PipelineOutput(worst=float(errors["error"].abs().max()), tables=sorted(samples.uris))


if __name__ == "__main__":
    ScytheWorkerConfig().start(additional_workflows=[pipeline])
