"""Hatchet: client, workers, tasks, and recovery from lost messages."""
