"""Reads specs in any form, writes them to the one file of a run, and restores them exactly."""
