"""The driver's side: submission of leaves to Ray, and their failures."""
