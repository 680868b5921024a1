from scythe.experiments import BaseExperiment

from experiments.building_energy import simulate_energy
from sample import sample

if __name__ == "__main__":

    experiment = BaseExperiment(
        runnable=simulate_energy

    )
    specs = sample(10)

    run, ref = experiment.allocate(
        specs,
        version="bumpminor",
    )
    result = ref.result()
    print("uris", sorted(result.uris))
    print("versions", [str(v.version) for v in experiment.list_versions()])
    print("latest", sorted(experiment.latest_results))
    print("run", run.experiment_id, run.scalars_filekey)
