"""What is computed in few steps gives exactly what the plain formulas give, by random cases around the thresholds."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from converters.libero import actions as acting
from converters.libero import gripper, neighbours
from converters.libero import orientation as facing
from converters.libero.hdf5 import Demo
from converters.shared.hdf5 import open_recording

SEEDS = range(60)


def _share(rows):
    low, high = rows.min(axis=2).astype(np.int16), rows.max(axis=2).astype(np.int16)
    middle = float(np.median(high))
    if not facing.BAND_GREY[0] <= middle <= facing.BAND_GREY[1]:
        return 0.0
    plain = (high - low <= facing.BAND_TINT) & (np.abs(high - middle) <= facing.BAND_EVEN)
    return float(plain.mean())


def _band(frame):
    height = max(1, int(facing.BAND_SHARE * len(frame)))
    top, bottom = _share(frame[:height]), _share(frame[-height:])
    if top >= facing.BAND_FILLED and bottom <= facing.BAND_CLEAR:
        return "top"
    return "bottom" if bottom >= facing.BAND_FILLED and top <= facing.BAND_CLEAR else "unclear"


def _bands(frames):
    height = max(1, int(facing.BAND_SHARE * len(frames[0])))
    return facing.bands_of(np.stack([rows for frame in frames for rows in (frame[:height], frame[-height:])]))


def _strip(rng, shape):
    """Pixels of one grey with some noise, some of them coloured, some of another grey."""
    grey = rng.choice([2, 13, 14, 15, 16, 40, 148, 150, 151, 152, 240])
    size = shape[0] * shape[1]
    values = np.full((size, 3), grey, np.int64)
    values += rng.integers(-rng.integers(0, 7), rng.integers(1, 7), (size, 1))
    values += rng.integers(0, rng.integers(1, 11), (size, 3))
    odd = rng.permutation(size)[: int(rng.choice([0, 0.05, 0.1, 0.11, 0.4, 0.5, 0.6, 1]) * size)]
    values[odd] = rng.integers(0, 256, (len(odd), 3)) if rng.random() < 0.5 else values[odd] + rng.integers(9, 16)
    return np.clip(values, 0, 255).astype(np.uint8).reshape(*shape, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_bands_are_those_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(rng.choice(sides)) for sides in ((1, 2, 7, 20, 61), (1, 3, 16)))
    frames = rng.integers(0, 256, (9, height, width, 3), dtype=np.uint8)
    strip = max(1, int(facing.BAND_SHARE * height))
    for frame in frames:
        frame[:strip], frame[-strip:] = _strip(rng, (strip, width)), _strip(rng, (strip, width))
    assert _bands(frames) == [_band(frame) for frame in frames]


def test_random_strips_are_in_every_place():
    rng = np.random.default_rng(0)
    frames = [np.concatenate([_strip(rng, (6, 8)), _strip(rng, (28, 8)), _strip(rng, (6, 8))]) for _ in range(400)]
    assert {_band(frame) for frame in frames} == {"top", "bottom", "unclear"}
    assert _bands(frames) == [_band(frame) for frame in frames]


@pytest.mark.parametrize("chunks", [None, (1, 8, 8, 3)])
def test_frames_are_looked_at_in_parts_where_they_are_large(tmp_path, monkeypatch, chunks):
    rng = np.random.default_rng(1)
    frames = np.stack(
        [np.concatenate([_strip(rng, (6, 8)), _strip(rng, (28, 8)), _strip(rng, (6, 8))]) for _ in range(9)]
    )
    found, before = [], facing.bands_of
    monkeypatch.setattr(facing, "bands_of", lambda ends: found.append(before(ends)) or found[-1])
    monkeypatch.setattr(facing, "BAND_BYTES", 2 * frames[0].nbytes)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("data/demo_0/obs/eye_in_hand_rgb", data=frames, chunks=chunks)
        facing.gripper_band(file, "demo_0")
    assert [len(some) for some in found] == [2, 2, 2, 2, 1]
    assert [band for some in found for band in some] == [_band(frame) for frame in frames]


@pytest.mark.parametrize("chunks", [None, (1, 8, 8, 3)])
@pytest.mark.parametrize("width", [8, 64, 130, 200])
def test_grey_frames_are_mean_colours(tmp_path, width, chunks):
    frames = np.random.default_rng(width).integers(0, 256, (30, 40, width, 3), dtype=np.uint8)
    at, step = np.array([0, 3, 29]), max(1, width // facing.MOTION_WIDTH)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        node = file.create_dataset("x", data=frames, chunks=chunks)
        found = facing._grey_frames(node, at)
    assert found.dtype == np.float64
    assert np.array_equal(found, np.stack([frames[row, ::step, ::step].mean(axis=2) for row in at]))


def _targets(demo):
    """`absolute_targets` with a median at every lag."""
    followed = {"the end effector's position in m": demo.state[:, :3]}
    if demo.joints is not None:
        followed["the joint angles in rad"] = demo.joints[:, :3]
    for what, values in followed.items():
        moving = np.ptp(values, axis=0) > acting.ABSOLUTE_TRAVEL
        if not moving.any():
            continue
        for lag in range(acting.ABSOLUTE_LAGS):
            apart = np.abs(demo.actions[: len(values) - lag, :3] - values[lag:])
            typical, span = float(np.median(apart, axis=0).max()), float(np.ptp(values, axis=0).max())
            if typical < acting.ABSOLUTE_NEAR * span and acting._follows(demo.actions, values, lag, moving):
                return f"columns 0 to 2 are {what} of {lag} rows later within {typical:.2g}"
    return None


def _demo(rng):
    """Actions that are deltas, or the position or the angles of some rows later with noise, for a part of the rows."""
    rows = int(rng.integers(acting.ABSOLUTE_ROWS, 40))
    state, joints = (np.cumsum(rng.normal(0, rng.choice([0, 0.001, 0.1]), (rows, n)), axis=0) for n in (8, 7))
    actions = rng.uniform(-1, 1, (rows, 7))
    lag, part = int(rng.integers(7)), int(rng.choice([0.4, 0.5, 0.6, 1]) * rows)
    meant = (state, joints)[int(rng.integers(2))]
    later = np.concatenate([meant[lag:, :3], np.repeat(meant[-1:, :3], lag, axis=0)])
    actions[:part, :3] = later[:part] + rng.normal(0, rng.choice([0, 0.01, 0.1]), (part, 3))
    if rng.random() < 0.1:
        joints[rng.integers(rows), rng.integers(3)] = rng.choice([np.nan, np.inf])
    return Demo(state, actions, "after_action", "", (), joints if rng.random() < 0.8 else None)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_absolute_targets_are_found_as_by_a_median_at_every_lag():
    rng = np.random.default_rng(2)
    demos = [_demo(rng) for _ in range(400)]
    found = [acting.absolute_targets(demo) for demo in demos]
    assert found == [_targets(demo) for demo in demos]
    assert {None if text is None else text.split()[6] for text in found} == {None, "end", "joint"}


def _kept(actions):
    """`kept_actions` row by row."""
    kept = np.linalg.norm(actions[:, :6], axis=1) >= 1e-4
    gripper = None
    for row, command in enumerate(actions[:, 6]):
        kept[row] |= gripper is not None and command != gripper
        if kept[row]:
            gripper = float(command)
    return kept


@pytest.mark.parametrize("seed", SEEDS)
def test_kept_actions_are_those_row_by_row(seed):
    rng = np.random.default_rng(seed)
    actions = rng.choice([0.0, 1e-5, 1.0], (int(rng.integers(0, 30)), 7), p=[0.96, 0.02, 0.02])
    actions[:, 6] = rng.choice([-1.0, 1.0, np.nan], len(actions), p=[0.5, 0.48, 0.02])
    if seed % 3 == 0:
        actions[:, 0] = 1.0
    assert np.array_equal(acting.kept_actions(actions), _kept(actions))


@pytest.mark.parametrize("others", [(), (0.5,), (-0.3, 0.7), (-2.0, 0.25)])
def test_other_gripper_commands_are_named_by_the_smallest(others):
    actions = np.zeros((12, 7))
    actions[:, 6] = [*others, *([-1.0, 0.0, -0.0, 1.0] * 3)][:12]
    found = np.unique(actions[:, 6][~np.isin(actions[:, 6], (-1.0, 0.0, 1.0))])
    said = [text for text in acting.action_warnings(actions) if "gripper commands" in text]
    assert said == [
        f"gripper commands other than -1 and 1, the first is {value:.4g}; clipped to 0 .. 1" for value in found[:1]
    ]


def _correlation(commands, opening):
    """`gripper._correlation` by np.corrcoef."""
    best = 0.0
    for lag in gripper.LAGS[: max(0, len(commands) - 2)]:
        one, other = commands[: len(commands) - lag], opening[lag:]
        if one.std() > 0 and other.std() > 0:
            found = float(np.corrcoef(one, other)[0, 1])
            best = found if abs(found) > abs(best) else best
    return best


@pytest.mark.parametrize("seed", SEEDS)
def test_correlations_are_those_of_corrcoef_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 200))
    actions = rng.choice([-1.0, 1.0], (rows, 7)) * rng.choice([1.0, 0.1, 1e-9])
    opening = 0.08 - 0.03 * np.roll(actions[:, 6], int(rng.integers(12))) + rng.normal(0, rng.choice([0, 0.01]), rows)
    if seed % 5 == 0:
        opening[:] = rng.choice([0.0, 0.08, 0.1])
    if seed % 7 == 0:
        actions[:-3, 6] = 0.3
    assert gripper._correlation(actions[:, 6], opening) == _correlation(actions[:, 6], opening)


def test_what_a_file_tells_is_read_once_until_it_changes_and_not_kept_just_after(tmp_path, monkeypatch):
    path, asked = tmp_path / "a.hdf5", []
    with h5py.File(path, "w") as file:
        file["x"] = 1

    def ask(file, *names):
        asked.append(names)
        return len(asked)

    def both(name):
        with open_recording(path) as file:
            return [neighbours.kept_of_file(file, ask, name) for _ in range(2)]

    clock = [path.stat().st_mtime_ns + neighbours.RECENT_NS - 1]
    monkeypatch.setattr("time.time_ns", lambda: clock[0])
    assert both("a") == [1, 2]
    clock[0] += 1
    assert both("a") == both("a") == [3, 3] and both("b") == [4, 4]
    os.utime(path, ns=(0, path.stat().st_mtime_ns - 1))
    assert both("a") == [5, 5]
    assert asked == [("a",), ("a",), ("a",), ("b",), ("a",)]
