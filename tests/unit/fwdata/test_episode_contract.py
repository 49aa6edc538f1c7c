"""`Episode` takes arrays of other number types where nothing is lost, and names every fault at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fwdata.api import BadEpisode, Discovery, Episode, EpisodeSegment, UsageError


def episode(**changes: Any) -> Episode:
    rows = {
        "cameras": {},
        "state": np.zeros((4, 2), np.float32),
        "action": np.zeros((4, 2), np.float32),
        "timestamp_ns": np.arange(4),
        "valid": np.ones(4, bool),
        "state_names": ("x", "y"),
        "action_names": ("x", "y"),
        "task": "lift",
        "instructions": ("lift it",),
    }
    return Episode(**{**rows, **changes})


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, np.int32, bool])
def test_other_number_types_are_cast(dtype: type) -> None:
    made = episode(state=np.ones((4, 2), dtype), action=[[0.1, 1]] * 4, valid=np.array([1, 0, 1, 1]))
    assert made.state.dtype == made.action.dtype == np.float32 and (made.state == 1).all()
    assert made.action[0, 0] == np.float32(0.1)
    assert made.valid.tolist() == [True, False, True, True]
    assert episode(timestamp_ns=np.arange(4, dtype=np.float64) * 1e8).timestamp_ns.dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": np.full((4, 2), 1e300)}, "state must be 2-D float32, found 2-D float64"),
        ({"action": np.full((4, 2), 2**24 + 1)}, "action must be 2-D float32, found 2-D int64"),
        ({"timestamp_ns": np.array([0, 0.5, 1, 2])}, "timestamp_ns must be 1-D int64, found 1-D float64"),
        ({"valid": np.array([0, 1, 2, 1])}, "valid must be 1-D bool, found 1-D int64"),
        ({"state": np.array([["a", "b"]] * 4)}, "state must be 2-D float32, found 2-D <U1"),
    ],
)
def test_a_cast_that_would_lose_something_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadEpisode, match=said):
        episode(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"instructions": ("lift it", "lift \ud83d")},
        {"task": "lift\udce9"},
        {"segments": (EpisodeSegment(0, 3, "lift \ud83d", {}),)},
    ],
)
def test_half_of_a_character_is_no_text(changes: dict[str, Any]) -> None:
    with pytest.raises(BadEpisode, match="the task or an instruction has half of a character"):
        episode(**changes)


def test_all_faults_are_in_one_message() -> None:
    with pytest.raises(BadEpisode) as refused:
        episode(state=np.zeros(4), action=np.zeros((4, 2), complex), valid=np.array([3, 1, 1, 1]), instructions=())
    for part in ("state must", "action must", "valid must", "no instruction text"):
        assert part in str(refused.value)
    with pytest.raises(BadEpisode) as refused:
        episode(action=np.zeros((3, 2)), timestamp_ns=[3, 2, 1, 0], state_names=("x",), metadata={"segments": []})
    for part in ("action has 3 rows", "timestamps go backwards", "1 names are given", "'segments'"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (
            {"seeds": (1, {"a": np.float32(2)})},
            r"metadata.seeds\[1\].a is np.float32\(2.0\) of type float32; metadata must",
        ),
        ({"a": {1: "x"}}, "metadata.a has the key 1, which is not text"),
        ({"a": [0.5, float("nan")]}, r"metadata.a\[1\] is nan, which JSON does not have"),
        ({"warnings": ["dark"]}, "metadata must not hold 'warnings': it is a field of Episode of that name"),
        ({"told": ["put \ud83d"]}, r"metadata.told\[0\] has half of a character \(U\+D83D\), which is no text: 'put"),
        ({"\udcff": 1}, r"metadata has a key with half of a character \(U\+DCFF\)"),
        ({"camera_sizes": {}}, "metadata must not hold 'camera_sizes': fwdata stores them from `cameras`"),
    ],
)
def test_metadata_that_cannot_be_stored_as_they_are_are_refused(metadata: dict[Any, Any], said: str) -> None:
    with pytest.raises(BadEpisode, match=said):
        episode(metadata=metadata)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"decisions": {"a": {1}}}, r"Discovery.decisions.a is \{1\} of type set; decisions must be plain JSON"),
        ({"decisions": {"a": float("inf")}}, "Discovery.decisions.a is inf, which JSON does not have"),
        ({"decisions": {1: "x"}}, "Discovery.decisions has the key 1, which is not text"),
        ({"decisions": ["a"]}, r"Discovery.decisions must map names to JSON, found \['a'\]"),
        ({"decisions": {"cameras": []}}, "Discovery.decisions must not hold 'cameras', which fwdata adds itself"),
        ({"decisions": {"per_episode": ["a"]}}, "must not hold 'per_episode', .*: state Discovery.per_episode"),
        ({"per_episode": "seed"}, "Discovery.per_episode must be names of keys, found 'seed'"),
    ],
)
def test_a_discovery_that_cannot_be_stored_as_it_is_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Discovery((), **fields)
    Discovery((), decisions={"seeds": (1, 2.5, None, True)}, per_episode=("seed",))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_float_keeps_its_nearest_single(values: list[float]) -> None:
    rows = np.array([values])
    with np.errstate(over="ignore"):
        fits = np.isfinite(rows.astype(np.float32)).all()
    names = tuple(map(str, range(len(values))))
    parts = {"state": rows, "action": np.zeros((1, 2)), "timestamp_ns": [0], "valid": [True], "state_names": names}
    if fits:
        assert np.array_equal(episode(**parts).state, rows.astype(np.float32))
    else:
        with pytest.raises(BadEpisode):
            episode(**parts)
