"""`python -m fwtrain`."""

from fwtrain.cli import main

main()
