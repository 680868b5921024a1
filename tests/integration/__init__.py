"""Tests of the core on a real engine and a real S3 server."""
