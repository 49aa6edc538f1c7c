"""`docs/store-format.md` names every group and array that stores of this version hold, with its type."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fixtures import toy_store
from latent_caches import random_latents
from old_stores import unpack
from paths import ROOT

import fwdata
from fwdata.encode.prompts import encode_text
from fwdata.store import records
from fwdata.store.caches.stats import compute_statistics, save_statistics
from fwdata.store.caches.stitched import materialise

PAGE = (ROOT / "docs" / "store-format.md").read_text()
ROWS = {name: (kind, about) for name, kind, about in re.findall(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]*) \|$", PAGE, re.M)}
"""Group or array -> what the page says it is, and holds."""


def named(key: str) -> str:
    """A path in a store as the page has it."""
    key = re.sub(r"p\d{5}(-\d+)?", "p00000", key)
    key = re.sub(r"^(latents|text)/[^/]+", r"\1/<name>-<fingerprint>", key)
    return re.sub(r"(/cameras)/[^/]+", r"\1/<camera>", key)


def undescribed(store: Path) -> list[str]:
    """What a store holds and the page does not say, or says otherwise."""
    found = []
    for file in sorted(store.rglob("zarr.json")):
        node, key = json.loads(file.read_text()), named(file.parent.relative_to(store).as_posix())
        if key == ".":
            continue
        if key not in ROWS:
            found.append(f"{key} is not named")
        elif node["node_type"] == "array":
            told = re.fullmatch(r"(\w+) \[([^\]]*)\]", ROWS[key][0].strip())
            kind, rank = node["data_type"], len(node["shape"])
            if told is None or told[1] != kind or len(told[2].split(",")) != rank:
                found.append(f"{key} is {kind} of {rank} dimensions, the page says {ROWS[key][0]}")
    return found


@pytest.mark.slow
def test_the_page_names_what_a_fresh_store_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = toy_store(tmp_path, monkeypatch, {"a": [40]})
    materialise(raw)
    store = fwdata.open(raw)
    save_statistics(store, compute_statistics(store))
    encode_text(raw, "tiny")
    random_latents(raw)
    assert undescribed(raw) == []
    held = {named(file.parent.relative_to(raw).as_posix()) for file in raw.rglob("zarr.json")}
    assert {"view", "sources/p00000", "evidence/p00000", "stats", "text", "latents", "parts/p00000/frames"} <= held


@pytest.mark.parametrize("name", ["v1-raw", "v1-jpeg", "v2-video", "v3-raw"])
def test_the_page_names_what_a_released_store_holds(name: str, tmp_path: Path) -> None:
    assert undescribed(unpack(name, tmp_path)) == []


def test_the_page_names_nothing_that_no_store_has() -> None:
    """Records are those of the code, and every array of a part is written somewhere."""
    for record in re.findall(r"`(\w+Record)`", PAGE):
        homes = [path for path in (ROOT / "fwdata" / "store").rglob("*.py") if f"class {record}(" in path.read_text()]
        assert hasattr(records, record) or homes, record
    writers = "".join(path.read_text() for path in (ROOT / "fwdata" / "store").rglob("*.py"))
    for key in ROWS:
        assert f'"{key.rpartition("/")[2]}"' in writers or "<" in key or key.endswith("p00000"), key
