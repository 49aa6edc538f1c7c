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


def upgrade_command() -> str:
    """A shell command that installs the newest version from where the package came from; a clone is pulled first."""
    origin = _origin()
    address, folder = str(origin.get("url", "")), _folder(origin)
    if "vcs_info" in origin:
        return f"{_installer()} --upgrade 'fwdata @ git+{address}'"
    if folder is None or not folder.is_dir():  # the file of a wheel is of one version
        return f"{_installer()} --upgrade fwdata"
    again = f"{_installer()} {_editable(origin)}{shlex.quote(str(folder))}"
    return f"git -C {shlex.quote(str(folder))} pull && {again}" if (folder / ".git").exists() else again


def _installer() -> str:
    if importlib.util.find_spec("pip") is not None:
        return f"{shlex.quote(sys.executable)} -m pip install"
    uv = "uv" if shutil.which("uv") else "python -m uv"
    return f"{uv} pip install --python {shlex.quote(sys.executable)}"


def _requirement(extra: str) -> str:
    """The package with an extra, as pip takes it."""
    origin = _origin()
    address, path = str(origin.get("url", "")), _folder(origin)
    if "vcs_info" in origin:
        return f"'fwdata[{extra}] @ git+{address}'"
    if address.startswith("https://"):
        return f"'fwdata[{extra}] @ {address}'"
    if path is None or not path.exists():
        return f"'fwdata[{extra}]'"
    return f"{_editable(origin)}{shlex.quote(f'{path}[{extra}]')}"


def _folder(origin: dict[str, object]) -> Path | None:
    """The local folder or file the package was installed from."""
    address = str(origin.get("url", ""))
    return Path(unquote(urlsplit(address).path)) if address.startswith("file://") else None


def _editable(origin: dict[str, object]) -> str:
    """`-e ` for a package that runs from its folder."""
    folder = origin.get("dir_info")
    return "-e " if isinstance(folder, dict) and folder.get("editable") is True else ""


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
