"""Runs one leaf or one batch, in whatever process the executor provides."""
