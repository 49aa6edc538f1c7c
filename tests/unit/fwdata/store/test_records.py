"""Records: what is read is checked, says where it is wrong, keeps what it does not know, and is written as it was."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from old_stores import STORES, unpack
from raw_metadata import read_attributes, write_attributes

import fwdata
from fwdata.errors import StoreDamaged
from fwdata.evidence.records import DatasetVerdict
from fwdata.merge import MergeRequest, merge
from fwdata.store.evidence import read_evidence, read_part_evidence, write_evidence, write_part_evidence
from fwdata.store.files import LocalFiles, json_digest
from fwdata.store.metadata import checked_record, read_complete, read_record
from fwdata.store.records import (
    DecisionsRecord,
    DetailsRecord,
    LatentCacheRecord,
    LatentPartRecord,
    PartRecord,
    PlanRecord,
    Record,
    StitchedRecord,
    StoreRecord,
    TextCacheRecord,
    TextPartRecord,
)
from fwdata.store.records.arrays import ArrayRecord
from fwdata.store.records.evidence import EvidenceRecord, PartEvidenceRecord
from fwdata.store.records.statistics import StatsRecord
from fwdata.store.records.store import all_names

type Json = dict[str, Any]

MODELS: dict[str, type[Record]] = {
    "zarr.json": StoreRecord,
    "plan/zarr.json": PlanRecord,
    "parts/p*/zarr.json": PartRecord,
    "parts/p*/frames/zarr.json": StitchedRecord,
    "latents/*/zarr.json": LatentCacheRecord,
    "latents/*/p*/zarr.json": LatentPartRecord,
    "text/*/zarr.json": TextCacheRecord,
    "text/*/p*/zarr.json": TextPartRecord,
    "stats/zarr.json": StatsRecord,
    "evidence/zarr.json": EvidenceRecord,
    "evidence/p*/zarr.json": PartEvidenceRecord,
}
FIXTURES = sorted(path.stem for path in STORES.glob("*.zip"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack("v1-raw", tmp_path_factory.mktemp("records"))


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


@pytest.mark.parametrize("name", FIXTURES)
def test_every_record_of_a_released_store_is_written_as_it_was(name: str, tmp_path: Path) -> None:
    store = unpack(name, tmp_path)
    seen: set[type[Record]] = set()
    for pattern, model in MODELS.items():
        for file in store.glob(pattern):
            raw = read_attributes(file.parent)
            record = read_record(LocalFiles(file.parent), "", model)
            assert record is not None and record.to_json() == raw and record.digest() == json_digest(raw), file
            seen.add(model)
    assert seen >= {StoreRecord, PlanRecord, PartRecord, LatentCacheRecord, LatentPartRecord, TextPartRecord}
    for part in fwdata.open(store).parts:
        offsets = part.array("details/offset").rows(0, len(part.record.episodes) + 1)
        documents = part.array("details/data").rows(0, int(offsets[-1])).tobytes()
        for start, end in itertools.pairwise(offsets.tolist()):
            raw = json.loads(documents[start:end])
            assert DetailsRecord.model_validate(raw).to_json() == raw and raw["metadata"]["camera_sizes"]
    for file in store.rglob("zarr.json"):
        if (meta := json.loads(file.read_bytes()))["node_type"] == "array":
            assert ArrayRecord.model_validate(meta).to_json() == meta, file


def everything(path: Path) -> None:
    store = fwdata.open(path)
    store.manifest, store.plan, store.quarantined, store.stats()
    for episode in store.episodes:
        episode.state(), episode.metadata, episode.window_instructions, episode.frames(store.cameras[0], [0])
        store.latents().first(episode, [0]), store.text().embedding(store.manifest.render_prompt(episode.instruction))


def test_verdicts_of_a_data_set_are_written_as_their_record_is(path: Path) -> None:
    late = DatasetVerdict("camera_delay", "contradicted", "top", 2.0, (1.5, 2.25), 0, 4, 1, "warn", episodes=("a/0",))
    good = DatasetVerdict("row_rate", "confirmed", episodes_for=5)
    write_evidence(path, 3, [good], [late, good], {"camera_delay": "known"}, ["p00000"])
    record = read_evidence(LocalFiles(path))
    stored = read_attributes(path / "evidence")
    assert EvidenceRecord.model_validate(stored).to_json() == stored
    assert record is not None and (record.measured_first, record.parts) == (3, ("p00000",))
    assert (record.first_verdicts(), record.verdicts()) == ((good,), (late, good))
    assert record.accepted() == {"camera_delay": "known"}
    write_evidence(path / "other", 1, [], [], {})  # so that the first is not what was written last
    assert read_evidence(LocalFiles(path)) == record
    changed = {**stored, "detectors": [{**stored["detectors"][0], "verdict": "maybe"}]}
    write_attributes(path / "evidence", changed)
    with pytest.raises(StoreDamaged, match=r"evidence/zarr.json.*detectors\.0\.verdict.*'maybe'"):
        read_evidence(LocalFiles(path))


def test_a_verdict_that_steers_is_checked(path: Path) -> None:
    verdict = {"detector": "gripper_polarity", "verdict": "contradicted", "value": 1, "interval": [0, 2.5], "new": 3}
    record = {"id": "a/0", "group": "a", "confirmed": {"rate": 0.5}, "no_evidence": {}, "contradicted": [verdict]}
    folder = path / "evidence/p00000"
    folder.mkdir(parents=True)
    write_attributes(folder, {"episodes": [record]})
    (found,) = read_part_evidence(LocalFiles(path), "p00000")
    assert [(v.detector, v.verdict, v.value) for v in found.verdicts] == [
        ("rate", "confirmed", 0.5),
        ("gripper_polarity", "contradicted", 1),
    ]
    write_part_evidence(path, "p00000", [found])
    assert read_attributes(folder)["episodes"][0]["contradicted"][0]["interval"] == [0, 2.5]
    as_record = PartEvidenceRecord.of([found]).to_json()
    assert {key: read_attributes(folder)[key] for key in as_record} == as_record
    write_attributes(folder, {"episodes": [{**record, "contradicted": [{**verdict, "verdict": "maybe"}]}]})
    with pytest.raises(StoreDamaged, match=r"p00000.*episodes\.0\.contradicted\.0\.verdict.*'maybe'"):
        read_part_evidence(LocalFiles(path), "p00000")


def drop(*keys: str | int) -> Callable[[Json], None]:
    def change(found: Any) -> None:
        for key in keys[:-1]:
            found = found[key]
        del found[keys[-1]]

    return change


def put(value: object, *keys: str | int) -> Callable[[Json], None]:
    def change(found: Any) -> None:
        for key in keys[:-1]:
            found = found[key]
        found[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("group", "change", "field", "problem"),
    [
        ("", drop("fps"), "fps", "is missing"),
        ("", put("fast", "fps"), "fps", "expected a valid number, found 'fast'"),
        ("", put([1], "cameras"), "cameras.0", "expected a valid string, found 1"),
        ("plan", drop("parts"), "parts", "is missing"),
        ("plan", put("3", "parts", 0, "episodes", 0, "bytes"), "parts.0.episodes.0.bytes", "a valid integer"),
        ("parts/p00000", drop("episodes", 0, "length"), "episodes.0.length", "is missing"),
        ("parts/p00000", put(-1, "episodes", 0, "start"), "episodes.0.start", "greater than or equal to 0, found -1"),
        (
            "parts/p00000",
            put("png", "cameras", "overhead", "encoding"),
            "cameras.overhead.encoding",
            "'jpeg' or 'video'",
        ),
        ("parts/p00000", drop("digests"), "digests", "is missing"),
        ("latents/default-*", put(0, "stride"), "stride", "greater than or equal to 1"),
        ("latents/default-*", put([48, 2], "shape"), "shape.2", "is missing"),
        ("latents/default-*/p00000", drop("windows"), "windows", "is missing"),
        ("text/default-*", put(None, "dim"), "dim", "a valid integer, found None"),
        ("text/default-*/p00000", drop("prompts"), "prompts", "is missing"),
        ("stats", put([], "statistics"), "statistics", "a valid dictionary"),
        ("stats", drop("statistics", "state", "mean"), "statistics.state.mean", "is missing"),
    ],
)
def test_a_wrong_field_is_named_with_store_part_and_field(
    path: Path, group: str, change: Callable[[Json], None], field: str, problem: str
) -> None:
    [folder] = path.glob(group) if group else [path]
    attributes = read_attributes(folder)
    change(attributes)
    write_attributes(folder, attributes)
    with pytest.raises(StoreDamaged) as caught:
        everything(path)
    message = str(caught.value)
    assert f"{folder}/zarr.json: field {field!r}" in message and problem in message and "\n" not in message


def test_fields_of_a_newer_minor_version_are_kept(path: Path, tmp_path: Path) -> None:
    before = json.loads((path / "parts/p00000/zarr.json").read_bytes())
    for folder in (path, path / "plan"):
        write_attributes(folder, {**read_attributes(folder), "curation": {"kept": True}})
    store = fwdata.open(path)
    everything(path)
    assert store.metadata["curation"] == {"kept": True} and store.plan.to_json()["curation"] == {"kept": True}
    assert json.loads((path / "parts/p00000/zarr.json").read_bytes()) == before
    shutil.copytree(path, tmp_path / "t.zarr")
    merge(MergeRequest((str(path), str(tmp_path / "t.zarr")), tmp_path / "m.zarr", allow_duplicates=True))
    assert fwdata.open(tmp_path / "m.zarr").metadata["curation"] == {"kept": True}


def test_only_a_complete_folder_has_a_record(path: Path) -> None:
    folder = path / "parts/p00000"
    write_attributes(folder, {"state": "writing", "source": "0"})
    assert read_complete(LocalFiles(path), "parts/p00000", PartRecord) is None
    assert read_complete(LocalFiles(path), "parts/p09999", PartRecord) is None
    assert "p00000" not in [part.name for part in fwdata.open(path).parts]


def test_an_array_without_its_kind_is_damaged(path: Path) -> None:
    file = path / "parts/p00000/lowdim/state/zarr.json"
    meta = json.loads(file.read_bytes())
    del meta["shape"]
    data = json.dumps(meta).encode()
    from fwdata.store.metadata import read_document

    with pytest.raises(StoreDamaged, match=r"state: field 'shape' is missing"):
        read_document(ArrayRecord, data, "state")
    with pytest.raises(StoreDamaged, match="not valid JSON"):
        read_document(ArrayRecord, b"{", "state")


def test_decisions_of_roots_and_inputs_that_differ_are_typed_and_kept() -> None:
    raw = {
        "cameras": {"a": ["top"], "b": {"c": ["top", "left"], "d": None}},
        "per_episode": {"a": ["seed", "scale.left"], "b": {"c": ["seed"], "d": None}},
        "colour": {"a": "rgb", "b": None},
        "counts": [1, 2.0, True, "1", {"x": None}],
    }
    record = DecisionsRecord.model_validate(raw)
    assert json.dumps(record.to_json()) == json.dumps(dict(sorted(raw.items()))), "1, 2.0 and true stay, keys by name"
    assert [*all_names(record.per_episode)] == ["seed", "scale.left", "seed"], "those of an input of an input too"
    with pytest.raises(StoreDamaged, match=r"store: field 'per_episode.*'.*found 5"):
        checked_record(DecisionsRecord, {"per_episode": 5}, "store")
