"""The commands of `scythe` on runs, workers and projects: one module for each family."""
