"""A planted case of every detector, and its clean twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from evidence_episodes import (
    backwards,
    begun,
    changed,
    clean_set,
    delayed,
    driven,
    euler_angles,
    fixed_camera,
    glued,
    grasping,
    libero_rows,
    looked_at,
    one_motion,
    rounded,
    scene,
    turning,
    twice,
    two_arms,
    with_claims,
)
from numpy.typing import NDArray

from fwdata.evidence.claims import CameraClaim, RateClaim, UnitClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Severity

JOINTS = [0, 1, 2, 4, 5, 6]


@dataclass(frozen=True)
class Case:
    """One detector: correct episodes that it has evidence on, and the same with its fault."""

    clean: Callable[[], Sequence[EpisodeInput]]
    """Correct episodes."""
    planted: Callable[[], Sequence[EpisodeInput]]
    """Episodes with the fault."""
    severity: Severity
    """Severity of the finding."""


def every(change: Callable[[EpisodeInput], EpisodeInput], first: int = 8) -> Callable[[], Sequence[EpisodeInput]]:
    """The clean set with the first episodes changed."""
    return lambda: [change(e) if number < first else e for number, e in enumerate(clean_set())]


def rows(change: Callable[[NDArray[np.float32], NDArray[np.float32]], None]) -> Callable[[EpisodeInput], EpisodeInput]:
    """A change of copies of state and action, in place."""

    def apply(episode: EpisodeInput) -> EpisodeInput:
        state, action = episode.state.copy(), episode.action.copy()
        change(state, action)
        return changed(episode, state=state, action=action)

    return apply


def scaled(*columns: int, factor: float, action: bool = True) -> Callable[[EpisodeInput], EpisodeInput]:
    """Columns in another unit."""

    def change(state: NDArray[np.float32], target: NDArray[np.float32]) -> None:
        state[:, columns] *= factor
        if action:
            target[:, columns] *= factor

    return rows(change)


def unwritten(state: NDArray[np.float32], action: NDArray[np.float32]) -> None:
    """The last ten rows were never filled."""
    state[-10:], action[-10:] = 0, 0


def in_degrees_later(state: NDArray[np.float32], action: NDArray[np.float32]) -> None:
    """Rows in degrees from the middle on."""
    state[60:, :3] *= 180 / np.pi
    action[60:, :3] *= 180 / np.pi


def in_rad(episode: EpisodeInput) -> EpisodeInput:
    """The left arm is claimed to be in rad."""
    return with_claims(episode, units=(UnitClaim("left arm", (0, 1, 2), "rad", 12.6),))


def inverted(episode: EpisodeInput) -> EpisodeInput:
    """The grippers were decided the other way round."""
    return with_claims(episode, grippers=tuple(replace(g, polarity=-1) for g in episode.claims.grippers))


def shown(episode: EpisodeInput, **images: NDArray[np.uint8]) -> EpisodeInput:
    """The episode with other images of some cameras."""
    return changed(episode, thumbnails={**episode.thumbnails, **images})


def late(episode: EpisodeInput) -> EpisodeInput:
    """All images five rows late."""
    return shown(episode, **{name: delayed(images, 5) for name, images in episode.thumbnails.items()})


def out_of_order(episode: EpisodeInput) -> EpisodeInput:
    """Some images of the head camera exchanged with the ones after them."""
    images = episode.thumbnails["head"].copy()
    for row in range(8, 112, 12):
        images[[row, row + 1]] = images[[row + 1, row]]
    return shown(episode, head=images)


def changing_places(episode: EpisodeInput) -> EpisodeInput:
    """Both wrist cameras exchanged from the middle on."""
    left, right = (episode.thumbnails[name] for name in ("left", "right"))
    halves = {"left": [left[:60], right[60:]], "right": [right[:60], left[60:]]}
    return shown(episode, **{name: np.concatenate(parts) for name, parts in halves.items()})


def commanded_late(state: NDArray[np.float32], action: NDArray[np.float32]) -> None:
    """The left gripper's command nine rows late."""
    action[:, 3] = delayed(action[:, 3], 9)


def in_reverse(episode: EpisodeInput) -> EpisodeInput:
    """The images of a real head camera in reverse order."""
    return with_claims(shown(episode, head=episode.thumbnails["head"][::-1]), simulated=False)


def held(episode: EpisodeInput) -> EpisodeInput:
    """Every second image of the head camera is shown twice."""
    return shown(episode, head=episode.thumbnails["head"][np.arange(120) // 2 * 2])


def frozen(episode: EpisodeInput) -> EpisodeInput:
    """The left wrist camera stops early."""
    images = episode.thumbnails["left"].copy()
    images[20:] = images[20]
    return shown(episode, left=images)


@cache
def mounted(exchanged: bool) -> tuple[EpisodeInput, ...]:
    """A fixed camera of whose image a part moves, beside the wrist cameras."""
    found = []
    for episode in clean_set():
        still = np.repeat(episode.thumbnails["head"][:1], 120, axis=0)
        still[:, 4:12, 4:12] = scene(episode.state[:, [0, 4]] * 12, 9, 8)
        left = episode.thumbnails["left"]
        images = {"head": left, "left": still, "right": still} if exchanged else {**episode.thumbnails, "head": still}
        found.append(changed(episode, thumbnails=images))
    return tuple(found)


def named(episodes: Sequence[EpisodeInput]) -> list[EpisodeInput]:
    """LIBERO's demonstration several times, each with an id and a place of its own."""
    return [changed(e, id=f"demo_{number}") for number, e in enumerate(episodes)]


def timed(late: int) -> EpisodeInput:
    """LIBERO's demonstration, its states from after the actions, which are so many rows late."""
    episode = libero_rows()
    return with_claims(changed(episode, action=delayed(episode.action, late)), effect_row=0)


def euler(episode: EpisodeInput) -> EpisodeInput:
    """Euler angles where an axis-angle was decided."""
    state, [claim] = episode.state.copy(), episode.claims.rotations
    assert claim.reference is not None
    state[:, 3:6] = euler_angles(claim.reference.astype(np.float64))
    return changed(episode, state=state)


def wrapped(episode: EpisodeInput) -> EpisodeInput:
    """Every second row is the same rotation the other way round."""
    state = episode.state.copy()
    angle = np.linalg.norm(state[:, 3:6], axis=1, keepdims=True)
    state[::2, 3:6] *= ((angle - 2 * np.pi) / angle)[::2]
    return changed(episode, state=state)


def seen(turn: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], wrist: bool = False) -> Sequence[EpisodeInput]:
    """Four episodes of a camera that shows the end effector move, its images turned."""
    claim = CameraClaim("image", "z+", "y-", mounted=wrist)
    episodes = (with_claims(fixed_camera(seed), cameras=(claim,)) for seed in range(4))
    return named([changed(e, thumbnails={"image": turn(e.thumbnails["image"])}) for e in episodes])


def rotating(length: float = 1.0, moved: int = 0) -> list[EpisodeInput]:
    """The clean set with a quaternion in its first columns, of that length, or with its numbers moved on, in one
    episode."""
    found = []
    for number, episode in enumerate(clean_set()):
        angle = 0.2 + 0.3 * np.tanh(np.cumsum(np.abs(np.diff(episode.state[:, 0], prepend=0.0))))
        state = episode.state.copy()
        state[:, :4] = np.stack([np.sin(angle), 0 * angle, 0 * angle, np.cos(angle)], axis=1)
        state[:, :4] = np.roll(state[:, :4] * length, moved, axis=1) if number == 3 else state[:, :4]
        free = with_claims(episode, layout=None, action=None, grippers=(), arms=(), pairs=())
        names = ("qx", "qy", "qz", "qw", *episode.state_names[4:])
        found.append(changed(free, state=state, state_names=names))
    return found


def stuck(episode: EpisodeInput) -> EpisodeInput:
    """The episode with a joint that was not read."""
    state = episode.state.copy()
    state[:, 1] = state[0, 1]
    return changed(episode, state=state)


def said(text: str) -> Callable[[EpisodeInput], EpisodeInput]:
    """The episode with another instruction."""
    return lambda e: changed(e, instruction=text)


def tasks(wrong: int = -1) -> list[EpisodeInput]:
    """Two tasks of eight episodes, one of which has the other's text."""
    texts = {"hammer": "beat the block with the hammer", "bell": "click the bell once"}
    return [
        changed(e, id=f"{task}_{i}", group=task, instruction=texts["bell" if i == wrong else task])
        for place, task in enumerate(texts)
        for i, e in enumerate(two_arms(8 * place + seed, images=False) for seed in range(8))
    ]


CLEAN = clean_set

CASES: dict[str, Case] = {
    "gripper_polarity": Case(CLEAN, every(inverted), "stop"),
    "gripper_scale": Case(CLEAN, every(scaled(3, factor=100)), "stop"),
    "state_unit": Case(every(in_rad), every(lambda e: in_rad(scaled(*JOINTS, factor=180 / np.pi)(e))), "stop"),
    "one_scale": Case(CLEAN, every(scaled(*JOINTS, factor=180 / np.pi), 3), "stop"),
    "column_units": Case(CLEAN, every(scaled(*JOINTS, factor=180 / np.pi), 3), "stop"),
    "gripper_answers": Case(CLEAN, every(rows(commanded_late)), "warn"),
    "unit_within": Case(CLEAN, every(rows(in_degrees_later), 1), "warn"),
    "action_meaning": Case(CLEAN, every(lambda e: with_claims(e, action="delta")), "stop"),
    "action_unit": Case(CLEAN, every(scaled(*JOINTS, factor=180 / np.pi, action=False)), "stop"),
    "state_delay": Case(CLEAN, lambda: [two_arms(seed, delay=14, images=False) for seed in range(8)], "stop"),
    "command_timing": Case(lambda: named([timed(0)]), lambda: named([timed(1)] * 3), "warn"),
    "column_names": Case(CLEAN, every(lambda e: changed(e, action=e.action[:, [4, 5, 6, 7, 0, 1, 2, 3]])), "stop"),
    "gripper_sense": Case(lambda: one_motion(), lambda: one_motion(reverse=(1, 4, 6)), "warn"),
    "gripper_open_end": Case(
        lambda: [grasping(seed) for seed in range(8)],
        lambda: [grasping(seed, turned=True) for seed in range(8)],
        "warn",
    ),
    "exchanged_columns": Case(
        lambda: [begun(seed, 0.02, home=True) for seed in range(9)],
        lambda: [begun(seed, 0.02, home=True, exchanged=seed == 4) for seed in range(9)],
        "warn",
    ),
    "quaternion_length": Case(rotating, lambda: rotating(0.5), "warn"),
    "quaternion_order": Case(rotating, lambda: rotating(moved=1), "warn"),
    "still_columns": Case(CLEAN, every(stuck, 1), "warn"),
    "step_size": Case(
        lambda: [driven(seed) for seed in range(9)],
        lambda: [driven(seed, 1 + (seed == 4)) for seed in range(9)],
        "warn",
    ),
    "held_rows": Case(CLEAN, every(lambda e: changed(e, state=e.state[np.arange(120) // 2 * 2]), 1), "warn"),
    "same_arms": Case(CLEAN, every(lambda e: changed(e, state=e.state[:, [*range(4), *range(4)]]), 1), "warn"),
    "row_rate": Case(CLEAN, every(lambda e: with_claims(e, rate=RateClaim(30.0, label=20.0))), "stop"),
    "camera_delay": Case(CLEAN, every(late), "stop"),
    "camera_frozen": Case(CLEAN, every(frozen), "stop"),
    "camera_content": Case(CLEAN, every(lambda e: shown(e, head=np.zeros_like(e.thumbnails["head"]))), "stop"),
    "scene_cut": Case(CLEAN, every(lambda e: glued(e, clean_set()[1]), 1), "warn"),
    "cameras_change_places": Case(CLEAN, every(changing_places, 1), "warn"),
    "image_order": Case(CLEAN, every(out_of_order), "warn"),
    "camera_motion": Case(CLEAN, every(in_reverse, 1), "warn"),
    "one_look": Case(looked_at, lambda: looked_at(turned=2), "warn"),
    "same_images": Case(looked_at, lambda: looked_at(images=3), "warn"),
    "coarse_values": Case(CLEAN, every(rounded, 1), "warn"),
    "repeated_rows": Case(CLEAN, every(twice), "warn"),
    "wrists_exchanged": Case(
        CLEAN, every(lambda e: shown(e, left=e.thumbnails["right"], right=e.thumbnails["left"])), "stop"
    ),
    "camera_rate": Case(CLEAN, every(held), "note"),
    "mounts_exchanged": Case(lambda: mounted(exchanged=False), lambda: mounted(exchanged=True), "stop"),
    "duplicate_episodes": Case(CLEAN, lambda: [*clean_set(), changed(clean_set()[2], id="again")], "warn"),
    "instruction_typos": Case(CLEAN, every(said("put the red blocck into the box"), 1), "warn"),
    "instruction_task": Case(tasks, lambda: tasks(wrong=3), "warn"),
    "instruction_placeholder": Case(CLEAN, every(said("TODO")), "warn"),
    "instruction_garbled": Case(CLEAN, every(said("put the r\u00c3\u00b6d block away")), "warn"),
    "instruction_ending": Case(CLEAN, every(said("put the red block into the box table 14")), "warn"),
    "unwritten_rows": Case(CLEAN, every(rows(unwritten)), "stop"),
    "start_pose": Case(
        lambda: [begun(seed) for seed in range(4)], lambda: [backwards(begun(seed)) for seed in range(4)], "stop"
    ),
    "rotation_form": Case(lambda: named([libero_rows()]), lambda: named([euler(libero_rows())] * 3), "stop"),
    "rotation_command": Case(
        lambda: named([turning(seed, "axis_angle") for seed in range(6)]),
        lambda: named([turning(seed, "euler") for seed in range(6)]),
        "warn",
    ),
    "wrapped_angles": Case(lambda: named([libero_rows()]), lambda: named([wrapped(libero_rows())] * 3), "stop"),
    "camera_up_down": Case(lambda: seen(lambda i: i), lambda: seen(lambda i: i[:, ::-1]), "stop"),
    "camera_left_right": Case(lambda: seen(lambda i: i), lambda: seen(lambda i: i[:, :, ::-1]), "stop"),
    "camera_quarter_turn": Case(lambda: seen(lambda i: i), lambda: seen(lambda i: np.rot90(i, 1, (1, 2))), "stop"),
    "wrist_left_right": Case(lambda: seen(lambda i: i, True), lambda: seen(lambda i: i[:, :, ::-1], True), "warn"),
}
"""Detector -> its case."""
