"""The worker while it serves: its processes, and what each of them does."""
