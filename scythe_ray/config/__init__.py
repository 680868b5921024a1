"""Settings, runtime environment and resources of the executor; needs no Ray."""
