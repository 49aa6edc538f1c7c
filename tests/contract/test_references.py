"""Schemas and reference pages are those of the models, accept what ships, and refuse what the program refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from paths import ROOT

from fwdata.report.manifest_reference import manifest_page, manifest_schema
from fwdata.report.model_reference import model_schema, reference_page, schema_text
from fwdata.validation import Model
from fwtrain.cli.schema import recipe_page, recipe_schema

MANIFESTS = sorted((ROOT / "manifests").glob("*.yaml"))
RECIPES = sorted((ROOT / "manifests" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize(
    ("file", "made", "command"),
    [
        ("manifests/schema.json", lambda: schema_text(manifest_schema()), "fwdata schema"),
        ("docs/manifest-reference.md", manifest_page, "fwdata schema --markdown"),
        ("manifests/recipes/schema.json", lambda: schema_text(recipe_schema()), "fwtrain schema"),
        ("docs/recipe-reference.md", recipe_page, "fwtrain schema --markdown"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_a_generated_file_is_fresh(file: str, made: Callable[[], str], command: str) -> None:
    assert (ROOT / file).read_text() == made() + "\n", f"run `{command} > {file}`"


@pytest.mark.parametrize("path", [*MANIFESTS, *RECIPES], ids=lambda path: path.name)
def test_a_shipped_file_names_its_schema_and_fits_it(path: Path) -> None:
    mark, _, name = path.read_text().partition("\n")[0].partition("$schema=")
    assert mark == "# yaml-language-server: "
    schema = json.loads((path.parent / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


ROBOTWIN = yaml.safe_load((ROOT / "manifests" / "robotwin.yaml").read_text())


@pytest.mark.parametrize(
    "change",
    [
        {"fps": 20},
        {"stitch": {"layout": "horizontal", "size": [224, 448]}},
        {"options": {"settings": ["clean"], "max_episodes_per_task": None}},
        {"converter": "lerobot", "options": {"state": "observation.state", "cameras": {"head": ["a", "b"]}}},
        {"converter": "my_own", "options": {"anything": 1}},
    ],
)
def test_the_schema_takes_what_a_manifest_may_say_shortly(change: dict[str, Any]) -> None:
    jsonschema.validate({**ROBOTWIN, **change}, manifest_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"fps": 0},
        {"stitch": {"layout": "horizontal"}},
        {"window": {"frames": 33}},
        {"options": {"setting": ["clean"]}},
        {"options": {"settings": ["dirty"]}},
        {"converter": "lerobot", "options": {"settings": ["clean"]}},
    ],
)
def test_the_schema_refuses_wrong_keys_and_values(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**ROBOTWIN, **change}, manifest_schema())


class Inner(Model):
    """Of the inside."""

    depth: float = 1.0
    """Metres."""


class Outer(Model):
    """Of the outside."""

    left: Inner = Inner()
    """The left | one."""
    right: Inner | None = None
    names: dict[str, int]
    """By
    name."""


def test_a_page_has_a_table_for_every_mapping() -> None:
    assert reference_page(model_schema(Outer, "Outer"), "Intro.").splitlines() == [
        "# Outer",
        "",
        "Intro.",
        "",
        "| Key | Type | Default | Meaning |",
        "|---|---|---|---|",
        "| `left` | [left, right](#left-right) |  | The left \\| one. |",
        "| `right` | [left, right](#left-right) or null | `null` |  |",
        "| `names` | mapping to whole number | required | By name. |",
        "",
        "## left, right",
        "",
        "Of the inside.",
        "",
        "| Key | Type | Default | Meaning |",
        "|---|---|---|---|",
        "| `depth` | number | `1.0` | Metres. |",
    ]
