from experiments.simulations import *  # noqa: F403
