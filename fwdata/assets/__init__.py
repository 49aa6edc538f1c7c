"""Data files shipped with the package: the tiny VAE's weights."""
