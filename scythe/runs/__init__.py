"""Runs: they are allocated, followed and read."""
