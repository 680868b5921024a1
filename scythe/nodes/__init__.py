"""The tree of scatter nodes, from the specs of a run to its tables."""
