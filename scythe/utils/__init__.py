"""The place where scythe-engine kept `filesys`; see `scythe.storage`."""
