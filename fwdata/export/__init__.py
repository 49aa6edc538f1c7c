"""A store handed on in another format, written by that format's own library."""
