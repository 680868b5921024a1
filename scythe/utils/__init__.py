"""The place where scythe-engine kept `filesys`; see `scythe.files` and `scythe.fetch`."""
