"""The tree of scatter nodes: how a run is divided, run, counted and gathered into tables."""
