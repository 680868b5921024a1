"""The bucket: keys, objects, files, and the documents that a run keeps there."""
