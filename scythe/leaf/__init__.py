"""What runs in the process of a leaf, whichever executor started it."""
