"""Conversion: from a folder of recordings to a store. `plan` decides what goes where, `run` does it."""
