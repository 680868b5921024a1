"""Submits what a manifest says, as a script of scythe-engine 1.0 did."""

import yaml
from scythe.experiments import BaseExperiment

from main import ProjectConfig, RoofInput

if __name__ == "__main__":
    study = yaml.safe_load(ProjectConfig().MANIFEST.read_text())
    experiment = BaseExperiment(experiment=study["experiment"], run_name=study["run_name"])
    specs = [
        RoofInput(experiment_id="placeholder", sort_index=i, slope=slope)
        for i, slope in enumerate(study["slopes"])
    ]
    run, ref = experiment.allocate(specs, version=study["version"])
    result = ref.result()
    print("tables", sorted(result.uris), sorted(experiment.latest_results))
    print("areas", run.results("scalars").to_pandas()["area"].tolist())
