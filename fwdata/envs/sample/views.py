"""Random images of the sample world without any files, for training a VAE on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.sample.draw import Image, render_all
from fwdata.envs.sample.tasks import TASKS
from fwdata.envs.sample.world import (
    TWO_ARMS,
    Button,
    Layout,
    Point,
    Scene,
    State,
    advance,
    arm_pose,
    expert_action,
    sample_scene,
)

_FREE_SHARE = 0.35
"""Share of clips with buttons and arms anywhere instead of along an expert's trajectory."""
_EPISODE = 45
"""Steps of expert motion that clips are cut from."""


def random_views(
    rng: np.random.Generator, count: int, *, layout: Layout = TWO_ARMS, pixels: tuple[int, int] = (48, 64)
) -> Iterator[dict[str, Image]]:
    """`count` times the images of one instant: camera name -> uint8 [H, W, 3] true RGB. About 1.5 ms each."""
    for clip in random_clips(rng, count, 1, 1, layout=layout, pixels=pixels):
        yield {name: frames[0] for name, frames in clip.items()}


def random_clips(
    rng: np.random.Generator,
    count: int,
    num_video_frames: int = 9,
    video_stride: int = 4,
    *,
    layout: Layout = TWO_ARMS,
    pixels: tuple[int, int] = (48, 64),
) -> Iterator[dict[str, Image]]:
    """`count` clips: camera name -> uint8 [num_video_frames, H, W, 3] true RGB; pixels = (height, width).

    About two thirds show expert motion as recordings have it (windows past an episode's end repeat its last frame), the
    others arms swinging between random poses and buttons anywhere. Frames of a clip are `video_stride` steps apart.
    """
    for _ in range(count):
        free = rng.random() < _FREE_SHARE
        scene, states = (_free_motion if free else _expert_motion)(rng, layout, num_video_frames, video_stride)
        frames = [render_all(scene, state, pixels) for state in states]
        yield {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}


def _expert_motion(rng: np.random.Generator, layout: Layout, frames: int, stride: int) -> tuple[Scene, list[State]]:
    scene = sample_scene(rng, layout)
    task = TASKS[int(rng.integers(len(TASKS)))]
    states = [scene.start_state()]
    start = int(rng.integers(_EPISODE))
    for _ in range(min(start + stride * (frames - 1), _EPISODE - 1)):
        states.append(advance(layout, states[-1], expert_action(scene, task, states[-1])))
    return scene, [states[min(start + stride * k, len(states) - 1)] for k in range(frames)]


def _free_motion(rng: np.random.Generator, layout: Layout, frames: int, stride: int) -> tuple[Scene, list[State]]:
    scene = sample_scene(rng, layout)
    buttons = tuple(Button(b.colour, _anywhere(rng)) for b in scene.buttons)
    first, last = (_random_state(rng, layout) for _ in range(2))
    share = np.minimum(np.arange(frames) * stride / float(rng.uniform(16, 48)), 1.0)
    share = share * share * (3 - 2 * share)
    states = [(first + s * (last - first)).astype(np.float32) for s in share]
    return replace(scene, buttons=buttons), states


def _anywhere(rng: np.random.Generator) -> Point:
    return float(rng.uniform(-0.36, 0.36)), float(rng.uniform(0.10, 0.50))


def _random_state(rng: np.random.Generator, layout: Layout) -> NDArray[np.float32]:
    poses = []
    for arm in layout.arms:
        reach, angle = rng.uniform(0.16, 0.52), rng.uniform(0.25 * np.pi, 0.75 * np.pi)
        hand = (arm.base[0] + reach * float(np.cos(angle)), arm.base[1] + reach * float(np.sin(angle)))
        poses.append(arm_pose(arm, hand, float(rng.choice([0.0, 1.0, rng.random()]))))
    return np.concatenate(poses).astype(np.float32)
