"""Shell commands that add an extra of this package, or a library, to the environment that runs."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit


def install_command(extra: str) -> str:
    """A shell command that installs an extra, as the package itself was installed.

    The package comes from its folder, its wheel or its repository, not from an index. Environments that uv makes have
    no pip: there the line names the environment for uv to install into.
    """
    return library_command(_requirement(extra))


def library_command(requirement: str) -> str:
    """A shell command that installs a requirement, quoted as a shell needs it: `'transformers>=5.3'`."""
    return f"{_installer()} {requirement}"


def _installer() -> str:
    if importlib.util.find_spec("pip") is not None:
        return f"{shlex.quote(sys.executable)} -m pip install"
    uv = "uv" if shutil.which("uv") else "python -m uv"
    return f"{uv} pip install --python {shlex.quote(sys.executable)}"


def _requirement(extra: str) -> str:
    """The package with an extra, as pip takes it."""
    origin = _origin()
    address, folder = str(origin.get("url", "")), origin.get("dir_info")
    if "vcs_info" in origin:
        return f"'fwdata[{extra}] @ git+{address}'"
    if address.startswith("https://"):
        return f"'fwdata[{extra}] @ {address}'"
    path = Path(unquote(urlsplit(address).path)) if address.startswith("file://") else None
    if path is None or not path.exists():
        return f"'fwdata[{extra}]'"
    editable = isinstance(folder, dict) and folder.get("editable") is True
    return f"{'-e ' if editable else ''}{shlex.quote(f'{path}[{extra}]')}"


@cache
def _origin() -> dict[str, object]:
    """PEP 610's record of where the installed package came from; empty where it came from an index."""
    import importlib.metadata

    try:
        text = importlib.metadata.distribution("fwdata").read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
