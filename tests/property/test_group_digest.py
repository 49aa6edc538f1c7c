"""The checksum of a group's metadata: taken from the stored text, equal to that of the encoded value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fwdata.errors import StoreDamaged
from fwdata.store import metadata
from fwdata.store.files import LocalFiles, json_digest
from fwdata.store.metadata import read_raw, write_raw

leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=12) | st.sampled_from(['\n  "sha256": "', '    "fwdata": {', "sha256", "}\n"])
keys = texts.filter(lambda key: key != "sha256")
values = st.recursive(leaves | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner))
attributes = st.dictionaries(keys | st.sampled_from(["a", "z", "sha255", "sha257"]), values, max_size=5)


@pytest.mark.slow
@given(attributes)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_stored_text_has_the_digest_of_the_value(tmp_path: Path, value: dict[str, object]) -> None:
    write_raw(tmp_path / "group", value)
    data = (tmp_path / "group" / "zarr.json").read_bytes()
    assert not value or metadata._stored_digest(data) == json_digest(value)  # an empty object is encoded on one line
    assert read_raw(LocalFiles(tmp_path), "group") == (value, json_digest(value))


def test_metadata_laid_out_by_another_writer_is_read(tmp_path: Path) -> None:
    value = {"state": "complete", "rows": 3}
    text = json.dumps(
        {"node_type": "group", "zarr_format": 3, "attributes": {"fwdata": {**value, "sha256": json_digest(value)}}}
    )
    (tmp_path / "zarr.json").write_text(text)
    assert metadata._stored_digest(text.encode()) is None
    assert read_raw(LocalFiles(tmp_path), "") == (value, json_digest(value))


@pytest.mark.parametrize("position", range(0, 400, 7))
def test_every_changed_byte_of_the_attributes_is_noticed(tmp_path: Path, position: int) -> None:
    write_raw(tmp_path, {"episodes": [{"id": f"take{i}", "length": 10 + i} for i in range(9)], "state": "complete"})
    file = tmp_path / "zarr.json"
    data = bytearray(file.read_bytes())
    place = data.index(b'"episodes"') + 1 + position
    data[place] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(StoreDamaged):
        read_raw(LocalFiles(tmp_path), "")
