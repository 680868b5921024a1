"""Specs: from whatever form they are given in, to the one file of a run, and back."""
