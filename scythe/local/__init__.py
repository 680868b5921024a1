"""The executor `local`: a pool of processes on this machine."""
