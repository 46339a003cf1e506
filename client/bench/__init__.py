"""The load generator: `python -m client bench`."""
