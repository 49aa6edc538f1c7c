"""Texts of a new converter's files, one module per kind of recording."""
