"""The bucket: object keys, objects, files, downloads, and the documents of a run."""
