"""The worker while it serves: a supervisor and worker processes with one Hatchet worker each.

In this package, a *part* is one worker process.
"""
