"""Training windows against a naive implementation of the official loader's rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fwdata
from fwdata.errors import ManifestError
from fwdata.manifest import validate_model
from fwdata.store.records import WindowRecord
from fwdata.window import Window

T = 100
SPEC = Window()


@pytest.mark.parametrize(
    ("start", "last_frame", "pad_actions", "pad_images", "pad_latents"),
    [
        (0, 32, 0, 0, [False, False, False]),
        (T - 33, 99, 0, 0, [False, False, False]),
        (T - 32, 99, 0, 1, [False, False, False]),
        (T - 20, 99, 12, 4, [False, False, True]),
        (T - 4, 99, 28, 8, [False, True, True]),
        (T - 1, 99, 31, 8, [False, True, True]),
    ],
)
def test_windows_at_the_end_are_clamped_and_marked(
    start: int, last_frame: int, pad_actions: int, pad_images: int, pad_latents: list[bool]
) -> None:
    frames = SPEC.video_indices(start, T)
    actions = SPEC.action_indices(start, T)
    assert frames.shape == (9,) and frames.dtype == np.int64 and frames[0] == start and frames[-1] == last_frame
    assert actions.shape == (32,) and actions[0] == start and actions[-1] == min(start + 31, T - 1)
    assert int(SPEC.action_is_pad(start, T).sum()) == pad_actions
    assert int(SPEC.image_is_pad(start, T).sum()) == pad_images
    assert SPEC.latent_is_pad(start, T).tolist() == pad_latents


@st.composite
def cases(draw: st.DrawFn) -> tuple[Window, int, int]:
    stride = draw(st.integers(1, 5))
    groups = draw(st.integers(0, 4))
    horizon = draw(st.integers(1, 4)) * max(groups * 4, 1)
    length = draw(st.integers(1, 90))
    spec = Window(num_frames=1 + groups * 4 * stride, video_stride=stride, action_horizon=horizon)
    return spec, draw(st.integers(0, length - 1)), length


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_every_window_matches_the_naive_rules(case: tuple[Window, int, int]) -> None:
    spec, start, length = case
    video, actions, image_pad, action_pad = [], [], [], []
    for offset in range(0, spec.num_frames, spec.video_stride):
        video.append(min(start + offset, length - 1))
        image_pad.append(start + offset >= length)
    for k in range(spec.action_horizon):
        actions.append(min(start + k, length - 1))
        action_pad.append(start + k >= length)
    latent_pad = [image_pad[0]] + [all(image_pad[i : i + 4]) for i in range(1, len(image_pad), 4)]
    assert spec.video_indices(start, length).tolist() == video
    assert spec.action_indices(start, length).tolist() == actions
    assert spec.image_is_pad(start, length).tolist() == image_pad
    assert spec.action_is_pad(start, length).tolist() == action_pad
    assert spec.latent_is_pad(start, length).tolist() == latent_pad
    assert len(latent_pad) == spec.latent_frames and len(video) == spec.num_video_frames
    starts, lengths = np.array([[start], [length - 1]]), np.array([[length], [length + 7]])  # several windows at once
    for rule in (spec.video_indices, spec.action_indices, spec.image_is_pad, spec.action_is_pad, spec.latent_is_pad):
        singly = [rule(int(begin), int(end)) for begin, end in zip(starts[:, 0], lengths[:, 0], strict=True)]
        together = rule(starts, lengths)
        assert np.array_equal(together, np.stack(singly)) and together.dtype == singly[0].dtype


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (10, 1), (10, 3), (9, 3), (2, 5)])
def test_starts_are_multiples_of_the_stride_below_the_length(length: int, stride: int) -> None:
    assert SPEC.starts(length, stride).tolist() == [t for t in range(length) if t % stride == 0]


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((32, 4, 32), "multiple of video_stride"),
        ((33, 4, 30), "action_horizon 30"),
        ((0, 4, 32), "num_frames"),
        ((33, 0, 32), "video_stride"),
        ((33, 4, 0), "action_horizon"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(numbers: tuple[int, int, int], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Window(num_frames=numbers[0], video_stride=numbers[1], action_horizon=numbers[2])


def test_a_manifest_refuses_a_window_that_does_not_fit() -> None:
    assert Window(num_frames=17, action_horizon=16).latent_frames == 2 and Window().latent_frames == 3
    for wrong in ({"video_stride": 0}, {"num_frames": 0}, {"num_frames": 30}, {"action_horizon": 31}):
        with pytest.raises(ManifestError):
            validate_model(Window, wrong, "window")


def test_a_cache_records_latent_frames_that_fit_its_window() -> None:
    recorded = WindowRecord(num_frames=33, video_stride=4, latent_frames=3, action_horizon=32)
    assert recorded.window() == SPEC
    with pytest.raises(ValueError, match="latent_frames must be 3, not 2"):
        recorded.model_copy(update={"latent_frames": 2}).window()


def test_the_earlier_name_of_a_window_takes_the_earlier_arguments() -> None:
    assert fwdata.WindowSpec(17, 4, 2, 16) == Window(num_frames=17, action_horizon=16)
    assert fwdata.WindowSpec(num_frames=17, latent_frames=2, action_horizon=16).latent_frames == 2
    assert fwdata.WindowSpec() == SPEC and isinstance(SPEC, fwdata.WindowSpec)
    with pytest.raises(ValueError, match="latent_frames must be 3, not 2"):
        fwdata.WindowSpec(33, 4, 2, 32)
    with pytest.raises(ValueError, match="must be a multiple"):
        fwdata.WindowSpec(30)
