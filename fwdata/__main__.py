"""`python -m fwdata`."""

from fwdata.cli import main

main()
