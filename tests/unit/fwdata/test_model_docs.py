"""Docstrings of fields: in schemas and flags, and read from source files only then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from paths import ROOT
from pydantic import Field

from fwdata.cli.converter_options import flags_of
from fwdata.field_docs import DocumentedModel, field_docs
from fwdata.plugins import load_file


class Lens(DocumentedModel):
    width: int = 1
    """Pixels
    across."""


class Rig(Lens):
    lens: Lens = Lens()
    """What it looks through."""
    width: int = 2
    """Of the whole rig."""
    named: str = Field(default="", description="Said in the field.")
    """Said below it."""
    bare: int = 0


def test_the_schema_has_the_docstrings_of_fields_and_their_bases() -> None:
    schema = Rig.model_json_schema()
    found = {name: node.get("description") for name, node in schema["properties"].items()}
    assert found == {
        "width": "Of the whole rig.",
        "lens": "What it looks through.",
        "named": "Said in the field.",
        "bare": None,
    }
    assert schema["$defs"]["Lens"]["properties"]["width"]["description"] == "Pixels\nacross."


def test_classes_inside_functions_and_in_plugin_files_have_them_too(tmp_path: Path) -> None:
    class Inner(Lens):
        depth: int = 0
        """How deep."""

    assert field_docs(Inner) == {"width": "Pixels\nacross.", "depth": "How deep."}
    code = 'from fwdata.validation import Model\nclass Options(Model):\n    scale: float = 1\n    "Metres per unit."\n'
    (tmp_path / "mine.py").write_text(code)
    assert flags_of(load_file("model_docs_mine", tmp_path / "mine.py").Options)["scale"].about == "Metres per unit"


def test_a_class_without_a_source_file_has_none() -> None:
    names: dict[str, type[DocumentedModel]] = {}
    exec("class Made(Base):\n    x: int = 0\n    'Text.'\n", {"Base": DocumentedModel, "__name__": "nowhere"}, names)
    assert field_docs(names["Made"]) == {} and names["Made"].model_json_schema()["properties"]["x"]["type"] == "integer"


def test_importing_the_conversion_reads_no_source_and_looks_for_no_plugin() -> None:
    """Both cost as much as all the rest of fwdata's own imports, in every command and worker."""
    program = (
        "import importlib.metadata as m, json; seen = []; m.entry_points = lambda **k: seen.append(k) or []\n"
        "import fwdata.console as c; c.set_environment()\n"
        "import fwdata.pipeline.run, fwdata.pipeline.part, fwdata.pipeline.discover, converters.libero\n"
        "from fwdata import field_docs\n"
        "print(json.dumps([seen, field_docs._docs.cache_info().currsize]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == [[], 0]
