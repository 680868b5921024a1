"""Processes of Scythe's own: started alike, ended for good."""
