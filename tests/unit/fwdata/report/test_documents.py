"""Documents of `--json` are what their types say: every key, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from fixtures import run_convert, toy_manifest, write_toy
from pydantic import TypeAdapter, ValidationError

import fwdata
from fwdata.api import Json
from fwdata.doctor.findings import CheckupJson
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.request import ConvertRequest
from fwdata.report import conversion
from fwdata.report.conversion import ConversionJson, DryRunJson, dry_run_json, report_json
from fwdata.report.inspect_store import StoreDescription, describe


def checked(kind: Any, document: object) -> None:
    """ValidationError for a missing key or another type; AssertionError for a key that the type does not have."""
    plain = json.loads(json.dumps(document))
    TypeAdapter(kind).validate_python(plain)
    assert set(plain) == set(get_type_hints(kind, {**vars(conversion), "Json": Json})), kind.__name__


def test_documents_of_a_conversion_and_its_store_fit_their_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = toy_manifest(monkeypatch)
    raw = write_toy(tmp_path / "raw", {"a": [3, 0], "b": [5]})
    out = tmp_path / "toy.zarr"
    monkeypatch.setattr(conversion, "Json", Json, raising=False)  # named for type checkers only
    plan = dry_run(ConvertRequest("toy", (raw,), out, manifest, 0))
    checked(DryRunJson, dry_run_json(plan))
    report = run_convert(raw, out, manifest)
    assert report.quarantined, "a recording that is left out is part of the document"
    checked(ConversionJson, report_json(report))
    checked(StoreDescription, describe(fwdata.open(out)))


def test_a_document_that_lacks_a_key_or_has_another_type_is_found() -> None:
    whole = {"where": "x", "kind": "store", "episodes": 1, "frames": 2, "images_of": {}, "counts": {}}
    whole |= {"findings": [], "not_verified": [], "verdicts": []}
    checked(CheckupJson, whole)
    for wrong in ({**whole, "episodes": "many"}, {k: v for k, v in whole.items() if k != "frames"}):
        with pytest.raises(ValidationError):
            checked(CheckupJson, wrong)
    with pytest.raises(AssertionError):
        checked(CheckupJson, {**whole, "colour": "red"})
