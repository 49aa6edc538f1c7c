"""Both command lines as click sees them."""

from __future__ import annotations

from typing import Any

import typer.main

from fwdata import cli as data_cli
from fwtrain import cli as train_cli

APPS: dict[str, Any] = {
    "fwdata": typer.main.get_command(data_cli.app),
    "fwtrain": typer.main.get_command(train_cli.app),
}
