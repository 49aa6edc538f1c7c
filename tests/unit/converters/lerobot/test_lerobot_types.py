"""Rows, numbers and metadata in other forms than LeRobot's own writers give them: the same values, or one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import Recipe, edit_info, frames, rows, write_dataset
from lerobot_reading import pixels

from converters.lerobot import Converter, choose_manifest
from fwdata.api import BadEpisode, Episode

KEYS = ("observation.state", "action")
SMALL = {"vectors": dict.fromkeys(KEYS, 7), "lengths": (6, 5), "cameras": ("observation.images.top",), "robot": "own"}


def _read(root: Path) -> list[Episode]:
    """The episodes of a dataset without a named layout."""
    made = Converter(choose_manifest([root], {}))
    return [made.read(root, ref) for ref in made.discover(root).episodes]


def edit(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change every table of a dataset."""
    for path in root.glob("data/*/*.parquet"):
        pq.write_table(change(pq.read_table(path)), path)


def columns(change: Callable[[list], pa.Array], *keys: str) -> Callable[[pa.Table], pa.Table]:
    """Other columns in place of some."""

    def changed(table: pa.Table) -> pa.Table:
        for key in keys:
            table = table.set_column(table.schema.names.index(key), key, change(table.column(key).to_pylist()))
        return table

    return changed


TENSOR = pa.fixed_shape_tensor(pa.float64(), [7])
COUNTED = ("frame_index", "episode_index", "index", "task_index")
FORMS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "nested [1, n]": columns(lambda rows: pa.array([[row] for row in rows]), *KEYS),
    "nested [n, 1]": columns(lambda rows: pa.array([[[n] for n in row] for row in rows]), *KEYS),
    "decimal": columns(
        lambda rows: pa.array([[Decimal(f"{n:.9f}") for n in row] for row in rows], pa.list_(pa.decimal128(20, 9))),
        *KEYS,
    ),
    "tensor": columns(
        lambda rows: pa.ExtensionArray.from_storage(TENSOR, pa.array(rows, pa.list_(pa.float64(), 7))), *KEYS
    ),
    "float16": columns(lambda rows: pa.array(np.float16(rows).tolist(), pa.list_(pa.float16())), *KEYS),
    "decimal indices": columns(lambda rows: pa.array([Decimal(n) for n in rows]), *COUNTED),
    "dictionaries": columns(lambda rows: pa.array(rows, pa.int64()).dictionary_encode(), *COUNTED),
    "durations": columns(lambda rows: pa.array((np.array(rows) * 1e9).astype("timedelta64[ns]")), "timestamp"),
    "shuffled": lambda table: table.take(np.random.default_rng(0).permutation(len(table))),
    "by frame": lambda table: table.sort_by("frame_index"),
    "shuffled, by index": lambda table: FORMS["shuffled"](table).drop_columns(["frame_index"]),
}


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_in_another_form(tmp_path: Path, version: str, form: str) -> None:
    recipe = Recipe(version=version, pictures="png", **SMALL)
    root = write_dataset(tmp_path / "set", recipe)
    edit(root, FORMS[form])
    found = _read(root)
    assert len(found) == 2
    for index, episode in enumerate(found):
        for key, values in zip(KEYS, (episode.state, episode.action), strict=True):
            assert np.allclose(values, rows(recipe, key, index), atol=2e-3 if form == "float16" else 1e-6)
        assert np.array_equal(pixels(episode.cameras["top"]), frames(recipe, "observation.images.top", index))
        sorted_ = [text for text in episode.warnings if "another order than frame_index" in text]
        assert bool(sorted_) == (form.startswith("shuffled") or (form, version) == ("by frame", "v3.0"))
        assert not any("fractions" in text for text in episode.warnings)


@pytest.mark.parametrize("told", [True, False])
def test_time_stamps_against_the_order_are_refused(tmp_path: Path, told: bool) -> None:
    """Of rows that were sorted, and of rows whose order nothing else tells."""
    root = write_dataset(tmp_path / "set", Recipe(**SMALL))
    backwards = columns(lambda numbers: pa.array(numbers[::-1]), "frame_index" if told else "timestamp")
    edit(root, backwards if told else lambda table: backwards(table).drop_columns(["frame_index", "index"]))
    with pytest.raises(BadEpisode, match=r"timestamp goes back from 0.333 s to 0.267 s at row 1, and") as caught:
        _read(root)
    assert ("were sorted by their index" if told else "no frame_index tells their order") in str(caught.value)


BACK = {
    "set back": (lambda t: np.where(t > 1, t - 0.7, t), "the order of frame_index: the state jumps"),
    "begins again": (lambda t: np.where(t > 1, t - 1, t), "the order of frame_index: the state jumps"),
    "two rows exchanged": (lambda t: t[[0, 1, 2, 3, 5, 4, *range(6, len(t))]], "frame_index: the state jumps 1."),
    "reversed": (lambda t: t[::-1], "the state moves as smoothly in the order of the times: rows or times"),
    "shuffled": (
        lambda t: t[np.random.default_rng(0).permutation(len(t))],
        "the order of frame_index: the state jumps",
    ),
}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("back", BACK)
def test_times_that_go_back_under_a_right_frame_index_are_judged_by_the_motion(
    tmp_path: Path, back: str, shuffled: bool
) -> None:
    """shuffled: the rows are in the order that the times do not say, and frame_index was written anew."""
    change, words = BACK[back]
    motion = np.sin(np.linspace(0, 3, 30))[:, None] * np.arange(1, 8)
    times = change(np.arange(30) / 15)
    if shuffled:
        motion = motion[np.argsort(np.argsort(times, kind="stable"))]
    root = write_dataset(tmp_path / "set", Recipe(**SMALL | {"lengths": (30,)}, values={(k, 0): motion for k in KEYS}))
    edit(root, columns(lambda _: pa.array(times, pa.float32()), "timestamp"))
    refused = shuffled or back == "reversed"
    if refused:
        with pytest.raises(
            BadEpisode, match=r"timestamp goes back from .* at row .*, and frame_index does not"
        ) as caught:
            _read(root)
        assert ("times as far as in the order" in str(caught.value)) == (back != "reversed")
    else:
        [episode] = _read(root)
        np.testing.assert_allclose(episode.state, motion, atol=1e-5)
        assert any(words in text for text in episode.warnings), episode.warnings


def test_times_that_are_no_numbers_are_reported(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", Recipe(**SMALL))
    edit(root, columns(lambda times: pa.array([*times[:-2], float("nan"), float("nan")], pa.float32()), "timestamp"))
    found = _read(root)
    assert all("timestamp is not a number in 2 of" in " ".join(episode.warnings) for episode in found)


def test_times_that_go_back_while_the_robot_rests_are_reported(tmp_path: Path) -> None:
    motion = np.repeat(np.sin(np.linspace(0, 3, 15))[:, None] * np.arange(1, 8), 2, axis=0)
    times = np.arange(30) / 15
    times[10:12] = times[10:12][::-1]
    root = write_dataset(tmp_path / "set", Recipe(**SMALL | {"lengths": (30,)}, values={(k, 0): motion for k in KEYS}))
    edit(root, columns(lambda _: pa.array(times, pa.float32()), "timestamp"))
    [episode] = _read(root)
    assert len(episode.state) == 30 and any("the state is the same" in text for text in episode.warnings)


@pytest.mark.parametrize(
    "changes",
    [{"shape": [1, 7]}, {"shape": [7, 1]}, {"shape": ["7"]}, {"shape": [7.0]}, {"dtype": "double"}, {"dtype": "<f4"}],
    ids=str,
)
def test_features_in_other_words(tmp_path: Path, changes: dict[str, object]) -> None:
    root = write_dataset(tmp_path / "set", Recipe(**SMALL))
    info = json.loads((root / "meta/info.json").read_text())
    features = info["features"] | {key: info["features"][key] | changes for key in KEYS}
    edit_info(root, features=features, fps="15", chunks_size="1000", total_episodes="2")
    assert [episode.state.shape for episode in _read(root)] == [(6, 7), (5, 7)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("array", [True, False])
def test_metadata_that_are_no_json_lines(tmp_path: Path, indent: int | None, array: bool) -> None:
    """An array, on one line or several, objects of several lines, and numbers as text."""
    root = write_dataset(tmp_path / "set", Recipe(**SMALL))
    for path in root.glob("meta/*.jsonl"):
        objects = [json.loads(line) for line in path.read_text().splitlines()]
        objects = [{key: str(n) if isinstance(n, int) else n for key, n in found.items()} for found in objects]
        apart = "\n".join(json.dumps(found, indent=indent) for found in objects)
        path.write_text(json.dumps(objects, indent=indent) if array else apart)
    assert [episode.instructions[0] for episode in _read(root)] == ["pick up the cup", "open the drawer"]


@pytest.mark.parametrize(
    ("key", "column", "found"),
    [
        ("action", [{"x": 1.0}] * 6, "action holds struct<x: double>, expected 7 numbers in a row"),
        ("action", ["[1]"] * 6, "action holds string, expected 7 numbers in a row"),
        ("timestamp", ["0"] * 6, "timestamp holds string, expected numbers"),
    ],
)
def test_columns_without_numbers_are_named(tmp_path: Path, key: str, column: list, found: str) -> None:
    root = write_dataset(tmp_path / "set", Recipe(**(SMALL | {"lengths": (6,), "tasks": (0,)})))
    edit(root, columns(lambda _: pa.array(column), key))
    with pytest.raises(BadEpisode, match="holds") as caught:
        _read(root)
    assert str(caught.value).endswith(found)
