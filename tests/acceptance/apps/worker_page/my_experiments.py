from experiments.simulations import PageInput, PageOutput, look_around


def my_simulation_fn(input_spec: PageInput) -> PageOutput:
    return look_around(input_spec.seconds)
