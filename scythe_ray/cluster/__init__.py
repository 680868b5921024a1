"""Finding, attaching to and starting a Ray cluster, and its capacity."""
