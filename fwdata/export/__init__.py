"""A store exported to another format, written by that format's own library."""
