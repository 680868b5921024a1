"""Starts operating-system processes, and ends them with all their descendants."""
