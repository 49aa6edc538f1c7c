"""Quick forms of what detectors compute, against the formulas they stand for."""

from __future__ import annotations

import io
import warnings

import av
import numpy as np
import pytest
from evidence_episodes import changed, clean_set, scene, smooth_motion, told

from fwdata.evidence import image_motion, own_lags, signals
from fwdata.evidence.camera_lags import Overlaps
from fwdata.evidence.detectors.rotation import (
    READ,
    from_euler,
    inverse,
    product,
    smoothed_turns,
    to_axis_angle,
)
from fwdata.evidence.image_motion import ImageMotion, apparent_motion
from fwdata.evidence.records import MotionTrace
from fwdata.evidence.signals import (
    cross_lagged,
    edged,
    known_medians,
    lagged,
    lagged_each,
    medians,
    non_negative_fit,
    non_negative_fits,
    percentile,
    running_sums,
    shifted,
    smooth,
)
from fwdata.evidence.thumbnails import Collector, from_rgb
from fwdata.images.small import COARSE, small_grey


def test_lagged_correlations_are_those_of_the_overlaps() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(50, 4)) + 1000, np.cumsum(rng.normal(size=(50, 4)), axis=0)
    left[:, 3] = 7.5
    lags = range(-8, 9)
    found = lagged(left, right, lags)
    for place, lag in enumerate(lags):
        one, other = left[max(0, -lag) : 50 - max(0, lag)], right[max(0, lag) : 50 - max(0, -lag)]
        for column in range(3):
            assert found[place, column] == pytest.approx(np.corrcoef(one[:, column], other[:, column])[0, 1], abs=1e-9)
    assert not found[:, 3].any()


def test_a_column_that_is_constant_where_both_overlap_has_no_correlation() -> None:
    left, right = np.zeros((12, 1)), np.arange(12.0)[:, None]
    left[-1] = 0.3
    assert lagged(left, right, range(1))[0, 0] > 0.4 and lagged(left, right, range(1, 2))[0, 0] == 0
    assert not lagged(left[:4], right[:4], range(2, 10)).any()
    assert lagged(left[:0], right[:0], range(2)).shape == (2, 1)


def test_series_that_are_correlated_at_once_are_those_of_one_after_the_other() -> None:
    rng = np.random.default_rng(2)
    sizes = [(40, 3), (200, 1), (0, 2), (44, 2), (41, 0), (60, 9), (48, 1)]
    pairs = [(rng.normal(size=size) + 5, np.cumsum(rng.normal(size=size), axis=0)) for size in sizes]
    lags = [range(-8, 9), range(3), range(2), range(-20, -3), range(2), range(30, 50), range(-2, 60)]
    for (left, right), wanted, found in zip(pairs, lags, lagged_each(pairs, lags), strict=True):
        np.testing.assert_allclose(found, lagged(left, right, wanted), atol=1e-12)
        assert found.any() == (found.size > 0 and len(left) > 0)


def test_correlations_of_every_column_with_every_other_are_those_of_the_overlaps() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(40, 3)), np.cumsum(rng.normal(size=(40, 5)), axis=0)
    right[:, 4] = 2.5
    found = cross_lagged(left, right, np.array([0, 2, 7]))
    assert found.shape == (3, 3, 5) and not found[..., 4].any()
    for place, lag in enumerate((0, 2, 7)):
        for one, other in np.ndindex(3, 4):
            expected = np.corrcoef(left[: 40 - lag, one], right[lag:, other])[0, 1]
            assert found[place, one, other] == pytest.approx(expected, abs=1e-9)


def test_non_negative_fits_at_once_are_those_of_one_after_the_other() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 40, 6)), rng.normal(size=(60, 40))
    x[:20, :, 1] = x[:20, :, 0] + 1e-3 * rng.normal(size=(20, 40))  # columns that are nearly the same
    x[20:30, :, 2], y[30] = 0, 0
    grams, moments = np.swapaxes(x, 1, 2) @ x, (np.swapaxes(x, 1, 2) @ y[..., None])[..., 0]
    for rounds in (signals.EXCHANGES, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signals, "EXCHANGES", rounds)  # few: the rest is fitted alone
            found = non_negative_fits(grams, moments)
        for index in range(60):
            alone = non_negative_fit(grams[index], moments[index])
            np.testing.assert_allclose(found[index], alone, atol=1e-6)
            assert (found[index] >= 0).all()


def test_turns_of_angles_are_products_of_single_turns() -> None:
    angles = np.random.default_rng(2).uniform(-3, 3, (20, 3))
    turns = []
    for axis in range(3):
        turn = np.zeros((20, 4))
        turn[:, axis], turn[:, 3] = np.sin(angles[:, axis] / 2), np.cos(angles[:, axis] / 2)
        turns.append(turn)
    x, y, z = turns
    np.testing.assert_allclose(from_euler(angles), product(z, product(y, x)), atol=1e-12)
    np.testing.assert_allclose(from_euler(angles, moving=True), product(x, product(y, z)), atol=1e-12)


def test_turns_of_several_episodes_at_once_are_those_of_each() -> None:
    rng = np.random.default_rng(4)
    episodes = [rng.normal(size=(rows, 3)) for rows in (5, 3, 8)]
    found, first = smoothed_turns(episodes), 0
    readings = (
        READ["axis_angle"],
        READ["euler_xyz"],
        READ["euler_zyx"],
        lambda angles: from_euler(angles, moving=True),
    )
    for columns in episodes:
        for place, read in enumerate(readings):
            rotations = read(columns)
            turns = smooth(to_axis_angle(product(rotations[1:], inverse(rotations[:-1]))))
            np.testing.assert_allclose(found[:, place, first : first + len(turns)].T, turns, atol=1e-12)
        first += len(columns)
    assert found.shape == (3, 4, first - 1)


@pytest.mark.parametrize("step", [1, 4])
def test_energy_is_the_mean_change_above_two_levels(step: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 16), dtype=np.uint8)
    images[7:9] = images[6]
    change = np.abs(images[step:].astype(float) - images[:-step])
    expected = np.maximum(change - 2, 0).mean(axis=(1, 2))
    before = (step + 1) // 2
    np.testing.assert_allclose(
        ImageMotion(images).energy_over(step), np.pad(expected, (before, step - before), mode="edge"), atol=1e-12
    )


def test_apparent_motion_is_the_least_squares_translation() -> None:
    images = scene(np.cumsum(smooth_motion(40, 2, np.random.default_rng(0)) * 0.3, axis=0), 0)
    images[11] = images[10]
    found = apparent_motion(images)
    for row in (1, 10, 11, 33, 39):
        before, after = images[row - 1].astype(np.float64), images[row].astype(np.float64)
        down, across = np.gradient((before + after) / 2)
        moving = np.abs(after - before) > 4
        moving[[0, -1]] = moving[:, [0, -1]] = False  # pixels of the border have one neighbour less
        x, y, t = across[moving], down[moving], (after - before)[moving]
        gram = np.array([[x @ x + 1, x @ y], [x @ y, y @ y + 1]])
        expected = np.linalg.solve(gram, -np.array([x @ t, y @ t])) if moving.sum() >= 4 else np.zeros(2)
        np.testing.assert_allclose(found[row], expected, atol=1e-9)
    assert not found[11].any()
    np.testing.assert_array_equal(ImageMotion(images).translation, found)  # each row of a short episode counts


def test_pixels_looked_at_one_by_one_and_together_have_one_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scene(np.cumsum(smooth_motion(150, 2, np.random.default_rng(1)) * 2, axis=0), 0)
    images[70] = images[69]
    found = []
    for share in (0.0, 0.1, 1.1):
        monkeypatch.setattr(image_motion, "FEW_MOVING", share)
        found.append(apparent_motion(images))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert not found[0][70].any() and found[0][1:].any(axis=1).sum() > 140


@pytest.mark.parametrize("size", [(480, 640), (240, 320), (128, 128), (64, 64), (37, 51)])
def test_thumbnails_of_pixels_are_averaged_blocks_of_green(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    side = max(1, min(size[1] // 64, size[0] // 24))
    step = 2 if side % 2 == 0 else 1
    green = frames[:, ::step, ::step, 1].astype(float)
    h, w, block = -(-green.shape[1] // (side // step)), -(-green.shape[2] // (side // step)), side // step
    found = from_rgb(frames)
    assert found.shape == (3, h, w) and found.flags.c_contiguous

    inner = green[:, : green.shape[1] // block * block, : green.shape[2] // block * block]
    means = inner.reshape(3, green.shape[1] // block, block, green.shape[2] // block, block).mean(axis=(2, 4))
    np.testing.assert_allclose(found[:, : means.shape[1], : means.shape[2]], means, atol=1)


def _jpegs(images: np.ndarray) -> list[bytes]:
    """The images ten times as large, as JPEG."""
    from PIL import Image

    found = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image.repeat(10, axis=0).repeat(10, axis=1)).save(buffer, "jpeg", quality=90)
        found.append(buffer.getvalue())
    return found


def _seen(buffers: list[bytes]) -> np.ndarray:
    taken = Collector(light=True, every=2)
    for data in buffers:
        taken.add_jpeg(data)
    return taken.take()


def test_light_detectors_find_faults_in_jpegs_that_are_decoded_no_larger_than_checking_them_takes() -> None:
    episode = clean_set()[0]
    buffers = _jpegs(episode.thumbnails["left"])
    images = _seen(buffers)
    assert len(images) == (len(buffers) + 1) // 2
    height, width = episode.thumbnails["left"].shape[1:]
    assert images.shape[1:] == (height * 10 // 8, width * 10 // 8)
    assert small_grey(buffers[0]).shape[1] >= 64
    assert (
        small_grey(buffers[0], COARSE).shape == images.shape[1:]
    )  # of rendered images an eighth does for all detectors

    def verdicts(detector: str, shown: np.ndarray) -> str:
        return told(detector, changed(episode, thumbnails={"left": shown}, every=2))["left"].verdict

    frozen = buffers[:60] + [buffers[60]] * (len(buffers) - 60)
    black = _jpegs(episode.thumbnails["left"] // 40)
    assert (verdicts("camera_frozen", images), verdicts("camera_content", images)) == ("confirmed", "confirmed")
    assert verdicts("camera_frozen", _seen(frozen)) == "contradicted"
    assert verdicts("camera_content", _seen(black)) == "contradicted"


def test_every_second_image_tells_the_change_between_them_at_every_row() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 12, 16), dtype=np.uint8)
    change = ImageMotion(images).energy
    for rows in (17, 18):
        found = ImageMotion(images, 2, rows).energy
        assert len(found) == rows and found[0] == change[0]
        assert [found[2 * k - 1] for k in range(1, 9)] == [found[2 * k] for k in range(1, 9)] == change[1:].tolist()
    assert found[17] == change[8]


def test_light_collectors_take_the_frames_of_every_second_row() -> None:
    frames = np.repeat(np.arange(40, dtype=np.uint8)[:, None, None, None], 48, axis=1).repeat(64, 2).repeat(3, 3)
    for cuts in ((1, 2, 5, 6), (3, 20), ()):
        taken = Collector(light=True, every=2)
        for block in np.split(frames, cuts):
            taken.add_rgb(block)
        assert taken.take()[:, 0, 0].tolist() == list(range(0, 40, 2)) and taken.count == 40
    taken.order(np.arange(3, 12))
    assert taken.take()[:, 0, 0].tolist() == [2, 4, 6, 8, 10]  # the frame taken last before that of rows 0, 2, ..
    taken.clear()
    assert taken.count == 0 and not taken.take().size


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (120, 14)])
def test_edges_and_running_sums_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    rest = [(0, 0)] * (len(shape) - 1)
    for before, after in ((0, 0), (1, 0), (2, 3)):
        assert np.array_equal(edged(values, before, after), np.pad(values, [(before, after), *rest], mode="edge"))
    assert np.array_equal(running_sums(values), np.cumsum(np.pad(values, [(1, 0), *rest]), axis=0))


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (120, 14)])
def test_percentiles_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    for share in (0, 2.5, 75, 80, 95, 99, 100):
        np.testing.assert_allclose(percentile(values, share), np.percentile(values, share, axis=0), rtol=1e-12)
    values[0] = np.nan
    assert np.isnan(percentile(values, 50)).all()


@pytest.mark.parametrize("shape", [(1,), (6,), (7,), (2, 3), (9, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_medians_are_those_of_numpy(shape: tuple[int, ...], dtype: type) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for axis in range(len(shape)):
        assert np.array_equal(medians(values, axis), np.median(values, axis=axis))
        assert np.array_equal(known_medians(values, axis), np.nanmedian(values, axis=axis))
    values.flat[0] = np.nan
    assert np.array_equal(medians(values), np.median(values, axis=0), equal_nan=True)
    with warnings.catch_warnings(action="ignore"):
        assert np.array_equal(known_medians(values), np.nanmedian(values, axis=0), equal_nan=True)
    assert medians(values).dtype == known_medians(values).dtype == dtype


def test_every_second_image_of_a_video_begins_with_that_of_the_first_row() -> None:
    taken = Collector(every=2)
    frames = np.repeat(np.arange(12, dtype=np.uint8)[:, None, None, None], 48, axis=1).repeat(64, 2).repeat(3, 3)
    for first in (0, 1, 4, 5):
        taken.clear(first)
        for frame in frames:
            taken.add_video(av.VideoFrame.from_ndarray(frame[..., 0], "gray"))
        taken.order(np.arange(first, 12))
        assert taken.take()[:, 0, 0].tolist() == list(range(first, 12, 2))


def test_energy_over_several_rows_is_the_same_with_every_second_image() -> None:
    images = scene(np.cumsum(np.full((41, 2), 0.3), axis=0), 3)
    whole = ImageMotion(images).energy_over(4)
    half = ImageMotion(images[::2], 2, 41).energy_over(4)
    np.testing.assert_allclose(half[::2], whole[::2], atol=1e-9)
    np.testing.assert_allclose(half[1::2], (half[:-1:2] + half[2::2]) / 2, atol=1e-9)


def test_products_at_every_lag_are_those_of_the_rows_that_overlap() -> None:
    rng = np.random.default_rng(2)
    speeds, energy, reach = rng.random((40, 3)), rng.random(40), 7
    products = Overlaps(MotionTrace("head", 20.0, energy, speeds, True), reach)
    for lag in range(-reach, reach + 1):
        one, other = shifted(speeds, energy, lag)
        one, other = one - one.mean(axis=0), other - other.mean()
        np.testing.assert_allclose(products.grams(slice(lag + reach, lag + reach + 1))[0], one.T @ one, atol=1e-9)
        np.testing.assert_allclose(products.moments[lag + reach], one.T @ other, atol=1e-9)
        assert products.squares[lag + reach] == pytest.approx(other @ other)


@pytest.mark.parametrize("noise", [0.1, 5.0, 50.0])
def test_no_lag_explains_an_episode_better_than_its_own_weights_could(noise: float) -> None:
    """What spares episodes without motion the search for two parts."""
    rng, traces = np.random.default_rng(3), []
    for rows in (60, 75, 90, 120, 150, 200, 64, 110):
        speeds = np.abs(np.cumsum(rng.normal(size=(rows, 7)), axis=0))
        speeds[:, 3] = 0.0  # a joint that stands still
        energy = speeds @ rng.random(7) + noise * rng.normal(size=rows)
        traces.append(MotionTrace("c", 20.0, energy, speeds, simulated=True))
    reach = own_lags.reach_of(traces)
    shown = own_lags._AtLags(traces, reach)
    most = shown.most()
    for start in (0, 4):
        found = shown.settled(np.array([start])).max(axis=1)
        assert (found <= most + 1e-6).all() and (found > 0.4 * most).any()
    weights = rng.random((2, len(traces), 7))
    for index in ((0, 0, 0), (1, 3, reach), (0, 7, 2 * reach), (1, 5, reach + 3)):
        start, place, lag = index[0], index[1], index[2] - reach
        energy, moved = (
            traces[place].energy[max(lag, 0) :],
            traces[place].speeds[max(-lag, 0) :] @ weights[start, place],
        )
        rows = min(len(energy), len(moved))
        expected = np.corrcoef(energy[:rows], moved[:rows])[0, 1]
        np.testing.assert_allclose(shown._scores(weights)[index], expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(40, 48, 64), (17, 5), (3, 260, 300), (2, 0), (0, 4, 4)])
def test_sums_of_bytes_are_those_of_whole_numbers(shape: tuple[int, ...]) -> None:
    """Blocks of images, one whose sum single precision may not hold, and images of no pixel."""
    images = np.random.default_rng(0).integers(250, 256, shape).astype(np.uint8)
    assert (
        image_motion.byte_sums(images).tolist()
        == images.reshape(len(images), -1 if images.size else 0).sum(axis=1, dtype=np.int64).tolist()
    )
    turned = images[::-1, ..., ::-1]
    assert image_motion.byte_sums(turned).tolist() == image_motion.byte_sums(images)[::-1].tolist()
