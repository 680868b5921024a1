"""Hatchet: its client, its workers, its tasks, and what it loses."""
