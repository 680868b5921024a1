"""Code that runs on a Ray node: the task, the node agent and their records."""
