"""Recipes as plain data: YAML text, and keys that the command line sets."""

from __future__ import annotations

from typing import Any

import yaml

from fwdata.errors import ManifestError, UsageError
from fwdata.manifest import load_yaml


def read_mapping(text: str, where: str) -> dict[str, object]:
    """Keys and values of YAML text. ManifestError naming `where` for anything else."""
    try:
        data = load_yaml(text)
    except yaml.YAMLError as error:
        raise ManifestError(f"{where} is not valid YAML: {str(error).replace(chr(10), ' ')}") from None
    if not isinstance(data, dict):
        raise ManifestError(f"{where} must be a mapping of keys to values, found {type(data).__name__}")
    return data


def set_key(data: dict[str, object], change: str) -> None:
    """Set one `a.b=value` in nested plain data. steps and epochs replace each other."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise UsageError(f"--set takes key=value, found {change!r}")
    value = _scalar(text, change)
    *path, last = key.split(".")
    node = data
    for part in path:
        if node.get(part) is None:  # absent, or switched off
            node[part] = {}
        child = node[part]
        if not isinstance(child, dict):
            raise ManifestError(f"--set {change}: {part!r} is a single value, it has no key {last!r}")
        node = child
    node[last] = value
    other = {"optim.steps": "epochs", "optim.epochs": "steps"}.get(key)
    if other and value is not None:
        node.pop(other, None)


def _scalar(text: str, change: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {change}: not a YAML value: {str(error).replace(chr(10), ' ')}") from None
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 3e-4 (no dot) as text
        except ValueError:
            return value
    return value
