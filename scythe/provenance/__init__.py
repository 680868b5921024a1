"""Identifies the code of an experiment: fingerprint, package version and Git commit."""
