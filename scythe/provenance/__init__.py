"""Which code an experiment runs: its fingerprint, its package's version and its Git commit."""
