"""Reading and writing the records of a store: the only place that touches raw attributes.

A group's `zarr.json` holds one record (`fwdata.store.records`) under `attributes.fwdata`, with the sha256 of its
canonical JSON. A missing or wrong field raises StoreDamaged with the file, which names store and part, and the field.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from fwdata.errors import NewerStore, StoreDamaged, one_line, upgrade_command
from fwdata.io import shortened, write_atomic
from fwdata.store.files import Files, canonical_json, json_digest
from fwdata.store.layout import LAYOUT_VERSION, ROOT_KEY
from fwdata.store.records import Digest, JsonObject, PartRecord, Record, StoreRecord

COMPLETE: Literal["complete"] = "complete"
"""State of a folder whose record is written last, when everything else is there."""


def checked_record[R: Record](model: type[R], value: object, where: str) -> R:
    """A record from plain JSON. StoreDamaged with the file and the field when one is missing or wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(place) for place in first["loc"])
        if first["type"] == "missing":
            problem = f"field {field!r} is missing"
        else:
            expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            problem = f"field {field!r}: expected {expected}, found {shortened(repr(first['input']), 40)}"
        raise StoreDamaged(
            one_line(
                f"{where}: {problem}; its checksum holds, so it was changed or written by another "
                "program: update fwdata, or run the command that wrote it again"
            )
        ) from None


@contextlib.contextmanager
def many_records() -> Iterator[None]:
    """Read many records without garbage collection in between, which would look at all of them again and again.

    Records refer to nothing that refers back, so there is nothing to collect; it is more than half of the time that
    opening thousands of parts takes. What was enabled before is enabled afterwards, also when several threads read.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_document[R: Record](model: type[R], data: bytes, where: str) -> R:
    """A record from JSON bytes that an array holds."""
    try:
        return checked_record(model, json.loads(data), where)
    except ValueError as error:
        if isinstance(error, StoreDamaged):
            raise
        raise StoreDamaged(f"{where} is not valid JSON; the store is damaged") from None


def read_record[R: Record](files: Files, key: str, model: type[R]) -> R | None:
    """The record of a group, or None when there is no group (at the root: no record of ours).

    StoreDamaged when it does not match its sha256, is missing from a group that is not the root, or has a missing or
    wrong field.
    """
    raw = _raw(files, key)
    return None if raw is None else checked_record(model, raw, _where(files, key))


def read_complete[R: Record](files: Files, key: str, model: type[R]) -> R | None:
    """The record of a folder that is complete; None when it is absent or was never finished."""
    raw = _raw(files, key)
    if raw is None or raw.get("state") != COMPLETE:
        return None
    return checked_record(model, raw, _where(files, key))


def read_part(files: Files, name: str) -> tuple[PartRecord, Digest] | None:
    """The record of a part and its sha256, which caches refer to; None when it is absent or was never finished."""
    key = f"parts/{name}"
    raw = read_raw(files, key)
    if raw is None or raw[0].get("state") != COMPLETE:
        return None
    return checked_record(PartRecord, raw[0], _where(files, key)), raw[1]


def has_record(files: Files, key: str) -> bool:
    """Whether a group holds a record of ours. StoreDamaged when what it holds does not match its sha256."""
    return _raw(files, key) is not None


def read_root(files: Files) -> StoreRecord | None:
    """The record of a store, or None when there is no store.

    NewerStore for a layout that is newer than this version reads, before anything else of the record is looked at.
    """
    raw = _raw(files, "")
    if raw is None:
        return None
    version = raw.get("layout_version")
    if not isinstance(version, int):
        raise StoreDamaged(f"{files.location}/zarr.json is not a store's own metadata; the file is damaged")
    if version > LAYOUT_VERSION:
        raise NewerStore(
            f"{files.location} has layout version {version}, this fwdata reads up to {LAYOUT_VERSION}: a later version "
            f"wrote it; update fwdata: {upgrade_command()}"
        )
    return checked_record(StoreRecord, raw, _where(files, ""))


def names_dimensions(files: Files) -> bool:
    """Whether arrays that are added to a store name their dimensions; see `StoreRecord.named_dimensions`."""
    record = read_root(files)
    return record is not None and record.named_dimensions


def holds_record(files: Files, key: str, record: Record) -> bool:
    """Whether a group holds exactly this record, whatever record it does hold."""
    return _raw(files, key) == record.to_json()


def write_record(path: Path, record: Record) -> None:
    """Write a group's metadata with a record and its sha256, whole or not at all."""
    write_raw(path, record.to_json())


def write_raw(path: Path, attributes: JsonObject) -> None:
    """`write_record` of plain JSON."""
    write_atomic(path / "zarr.json", _group_json(attributes))


def _group_json(attributes: JsonObject) -> bytes:
    """`canonical_json` of a group's metadata with a record and its sha256.

    The record's text, of which the digest is, is made once and moved in by the depth it lies at; see `_stored_digest`.
    """
    text = canonical_json(attributes).removesuffix(b"\n")
    digest = hashlib.sha256(text + b"\n").hexdigest()
    after = min((key for key in attributes if key >= "sha256"), default=None)
    if not attributes or after == "sha256":
        content = {ROOT_KEY: {**attributes, "sha256": digest}}
        return canonical_json({"zarr_format": 3, "node_type": "group", "attributes": content})
    line = _DIGEST + digest.encode() + b'"'
    if after is None:
        text = text.removesuffix(b"\n}") + b"," + line + b"\n}"
    else:
        place = text.index(b"\n  " + json.dumps(after, ensure_ascii=False).encode() + b": ")
        text = text[:place] + line + b"," + text[place:]
    return b'{\n  "attributes": {\n    "fwdata": ' + text.replace(b"\n", b"\n    ") + _REST


_REST = b'\n  },\n  "node_type": "group",\n  "zarr_format": 3\n}\n'


def is_written_group(files: Files, key: str, data: bytes) -> bool:
    """Whether the bytes of a group's zarr.json are as fwdata writes it, with or without a record.

    StoreDamaged when they hold a record that does not match its sha256.
    """
    meta = json.loads(data)
    if not isinstance(meta, dict) or canonical_json(meta) != data:
        return False
    if meta.keys() != {"zarr_format", "node_type", "attributes"}:
        return False
    if (meta["zarr_format"], meta["node_type"]) != (3, "group"):
        return False
    return meta["attributes"] == {} or _raw(files, key) is not None


def _where(files: Files, key: str) -> str:
    return f"{files.location}/{key}/zarr.json" if key else f"{files.location}/zarr.json"


_OPEN, _CLOSE, _DIGEST = b'\n    "fwdata": {\n', b"\n    }\n", b'\n  "sha256": "'


def _stored_digest(data: bytes) -> str | None:
    """sha256 of a record without encoding it again: the stored text, moved out by the depth it lies at.

    None where a group's metadata is not laid out as `write_record` lays it out. A JSON string never holds a line feed,
    so the text can be cut by lines.
    """
    start, end = data.find(_OPEN), data.rfind(_CLOSE)
    if start < 0 or end < start:
        return None
    text = data[start + len(_OPEN) - 1 : end].replace(b"\n    ", b"\n")
    low = text.rfind(_DIGEST)
    if low < 0:
        return None
    high = text.find(b"\n", low + 1)
    before, after = text[:low], b"" if high < 0 else text[high:]
    if not after:  # the last key: no comma follows the one before it
        before = before.removesuffix(b",")
    return hashlib.sha256(b"{" + before + after + b"\n}\n").hexdigest()


def _json_object(files: Files, key: str, data: bytes) -> JsonObject:
    try:
        value = json.loads(data)
    except ValueError:
        raise StoreDamaged(f"{files.location}/{key} is not valid JSON; the file is damaged") from None
    if not isinstance(value, dict):
        raise StoreDamaged(f"{files.location}/{key} must hold a JSON object, found {type(value).__name__}")
    return value


def read_raw(files: Files, key: str) -> tuple[JsonObject, Digest] | None:
    """The attributes of a group and their sha256, or None when there is no group (at the root: none of ours).

    For this module and its tests; everything else reads records. StoreDamaged when they do not match the sha256 they
    carry, or are missing from a group that is not the root.
    """
    name = f"{key}/zarr.json" if key else "zarr.json"
    data = files.read(name)
    if data is None:
        return None
    meta = _json_object(files, name, data)
    attributes = meta.get("attributes")
    found = attributes.get(ROOT_KEY) if isinstance(attributes, dict) else None
    if not isinstance(found, dict):
        if key:
            raise StoreDamaged(f"{files.location}/{name} has no fwdata attributes; the file is damaged")
        return None
    if (meta.get("zarr_format"), meta.get("node_type")) != (3, "group"):
        raise StoreDamaged(f"{files.location}/{name} does not describe a Zarr v3 group")
    digest = found.pop("sha256", None)
    if not isinstance(digest, str) or (digest != _stored_digest(data) and digest != json_digest(found)):
        raise StoreDamaged(f"{files.location}/{name}: checksum does not hold; the metadata was changed or is damaged")
    return found, digest


def _raw(files: Files, key: str) -> JsonObject | None:
    found = read_raw(files, key)
    return None if found is None else found[0]
