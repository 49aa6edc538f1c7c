"""Episodes with known conventions, made by code: smooth arms, grippers that follow, cameras that show the motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from paths import DATA

from fwdata.evidence.claims import ArmClaim, CameraClaim, Conventions, GripperClaim, RateClaim, RotationClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.looks import CameraLook
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Verdict
from fwdata.evidence.registry import find_detector

HZ = 20.0

JOINTS = tuple(f"{side}_joint_{i}" for side in ("left", "right") for i in range(1, 4))
NAMES = (*JOINTS[:3], "left_gripper", *JOINTS[3:], "right_gripper")


def smooth_motion(rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """float64 [rows, columns]: starts, stops and turns of different columns at different times, some 0.6 rad."""
    knots = max(4, rows // 12)
    steps = rng.normal(0, 0.35, (knots, columns)) * (rng.random((knots, columns)) < 0.8)
    values = np.cumsum(steps, axis=0)
    at = np.linspace(0, knots - 1.001, rows)
    low, part = at.astype(int), at % 1
    ease = (part**2 * (3 - 2 * part))[:, None]
    return values[low] * (1 - ease) + values[np.minimum(low + 1, knots - 1)] * ease


def delayed(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """The values `rows` rows later (negative: earlier); the end values are held."""
    return values[np.clip(np.arange(len(values)) - rows, 0, len(values) - 1)]


def scene(offsets: NDArray[np.float64], seed: int, size: int = 32) -> NDArray[np.uint8]:
    """uint8 [T, size, size]: a smooth random texture moved by offsets [T, 2] (right, down) in pixels."""
    rng = np.random.default_rng(seed)
    waves = [(rng.normal(0, 0.25, 2), rng.uniform(0, 6.3), rng.uniform(15, 40)) for _ in range(8)]
    down, across = np.mgrid[:size, :size].astype(float)
    found = np.full((len(offsets), size, size), 120.0)
    for (kx, ky), phase, height in waves:
        x, y = across[None] - offsets[:, 0, None, None], down[None] - offsets[:, 1, None, None]
        found += height * np.sin(kx * x + ky * y + phase)
    return np.clip(found, 0, 255).astype(np.uint8)


def two_arms(seed: int, rows: int = 120, *, delay: int = 2, images: bool = True) -> EpisodeInput:
    """Two arms of three joints and a gripper each: absolute targets that the state follows `delay` rows later."""
    rng = np.random.default_rng(seed)
    targets = smooth_motion(rows, 6, rng)
    turns = np.arange(rows)[:, None] + rng.integers(0, 24, 2)
    grip = (turns // 24 % 2).astype(float)
    action = np.concatenate([targets[:, :3], grip[:, :1], targets[:, 3:], grip[:, 1:]], axis=1)
    state = delayed(action, delay) + rng.normal(0, 2e-3, action.shape)
    for column in (3, 7):
        state[:, column] = np.convolve(np.pad(state[:, column], (4, 0), mode="edge"), np.ones(5) / 5, "valid")
    shown: dict[str, NDArray[np.uint8]] = {}
    if images:
        seen = state
        shown = {
            "head": scene(seen[:, [0, 4]] * 12, 1),
            "left": scene(seen[:, [0, 1]] * 15 + seen[:, [2, 2]] * 8, 2),
            "right": scene(seen[:, [4, 5]] * 15 + seen[:, [6, 6]] * 8, 3),
        }
    claims = Conventions(
        layout="two_arms",
        action="absolute",
        grippers=(
            GripperClaim("left_gripper", 3, (3,), (), 1, "unit", "unit"),
            GripperClaim("right_gripper", 7, (7,), (), 1, "unit", "unit"),
        ),
        arms=(ArmClaim("left", (0, 1, 2), "left"), ArmClaim("right", (4, 5, 6), "right")),
        rate=RateClaim(HZ, label=HZ),
        simulated=True,
    )
    return EpisodeInput(
        id=f"episode_{seed}",
        group="set",
        state=state.astype(np.float32),
        action=action.astype(np.float32),
        state_names=NAMES,
        action_names=NAMES,
        timestamp_s=np.arange(rows) / HZ,
        hz=HZ,
        instruction="put the red block into the box",
        claims=claims,
        thumbnails=shown,
    )


@cache
def clean_set(count: int = 8) -> tuple[EpisodeInput, ...]:
    """Clean two-arm episodes; made once."""
    return tuple(two_arms(seed) for seed in range(count))


def changed(episode: EpisodeInput, **changes: Any) -> EpisodeInput:
    """The episode with other fields."""
    return replace(episode, **changes)


def with_claims(episode: EpisodeInput, **changes: Any) -> EpisodeInput:
    """The episode with other claims."""
    return replace(episode, claims=replace(episode.claims, **changes))


def told(name: str, episode: EpisodeInput) -> dict[str, Verdict]:
    """Verdicts of one detector by subject."""
    return {verdict.subject: verdict for verdict in find_detector(name).measure(episode)}


def pooled(name: str, episodes: Sequence[EpisodeInput]) -> dict[str, DatasetVerdict]:
    """Pooled verdicts of one detector by subject."""
    detector = find_detector(name)
    measured = [EpisodeMeasurement(e.id, e.group, detector.measure(e), detector.trace(e)) for e in episodes]
    return {verdict.subject: verdict for verdict in detector.pool(measured)}


def driven(seed: int, every: int = 1) -> EpisodeInput:
    """Arms of a simulator that a planner drives at one top speed, now one joint and now another; of every so many rows
    one is there."""
    episode, rng = two_arms(seed, images=False), np.random.default_rng(seed)
    ways = rng.uniform(-1, 1, (8, 8))
    ways /= np.abs(ways).max(axis=1, keepdims=True)
    speeds = np.repeat(ways * rng.uniform(0.95, 1.0, (8, 1)), 15, axis=0)
    ramps = np.minimum(1.0, np.minimum(np.arange(15), np.arange(15)[::-1]) / 4)
    state = np.cumsum(0.04 * speeds * np.tile(ramps, 8)[:, None], axis=0).astype(np.float32)
    action = np.concatenate([state[1:], state[-1:]])
    cut = {"state": state[::every], "action": action[::every], "timestamp_s": np.arange(len(state[::every])) / HZ}
    free = with_claims(changed(episode, **cut), grippers=(), simulated=True)
    return replace(free, id=f"episode_{seed}")


def begun(seed: int, wobble: float = 0.0, *, home: bool = False, exchanged: bool = False) -> EpisodeInput:
    """Arms that leave one start pose, as in a simulator, up to `wobble` rad off it. home: of other angles for every
    joint; exchanged: of which the first two of the right arm have changed places."""
    episode = two_arms(seed, images=False)
    off = np.random.default_rng(seed).uniform(-wobble, wobble, episode.state.shape[1])
    state, action = (rows - rows[0] + off for rows in (episode.state, episode.action))
    state[-40:, 0] += 1.0 + 0.1 * seed
    action[-40:, 0] += 1.0 + 0.1 * seed
    if home:
        state, action = (rows + 2.0 * np.arange(8, dtype=np.float32) for rows in (state, action))
    if exchanged:
        state, action = (rows[:, [0, 1, 2, 3, 5, 4, 6, 7]] for rows in (state, action))
    claimed = with_claims(changed(episode, state=state, action=action), one_start=True)
    return replace(claimed, id=f"episode_{seed}")


def backwards(episode: EpisodeInput) -> EpisodeInput:
    """The rows in reverse order."""
    return changed(episode, state=episode.state[::-1].copy(), action=episode.action[::-1].copy())


@cache
def libero_rows() -> EpisodeInput:
    """A true LIBERO demonstration (108 rows, no images), as the converter stores it, with the file's quaternion."""
    import h5py

    from fwdata.evidence.detectors.rotation import to_axis_angle

    path = next((DATA / "libero_replay").rglob("*.hdf5"))
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        action, robot = np.asarray(demo["actions"]), np.asarray(demo["robot_states"])
    fingers, position, quaternion = robot[:, :2], robot[:, 2:5], robot[:, 5:9]
    vectors = to_axis_angle(quaternion)
    angle = np.linalg.norm(vectors, axis=1, keepdims=True)
    flipped = (vectors * vectors[:1]).sum(1) < 0  # 0 .. 2 pi, without jumps
    vectors = np.where(flipped[:, None], vectors / angle * (angle - 2 * np.pi), vectors)
    state = np.concatenate([position, vectors, fingers], axis=1).astype(np.float32)
    action[:, 6] = 1 - np.clip(action[:, 6], 0, 1)
    names = ("eef_x", "eef_y", "eef_z", "eef_rx", "eef_ry", "eef_rz", "finger_1", "finger_2")
    claims = Conventions(
        layout="libero",
        action="delta",
        pairs=((0, 0), (1, 1), (2, 2)),
        grippers=(GripperClaim("gripper", 6, (6, 7), (1.0, -1.0), 1, "unit", None),),
        rotations=(RotationClaim((3, 4, 5), "axis_angle", True, (3, 4, 5), quaternion.astype(np.float32)),),
        position=(0, 1, 2),
        cameras=(CameraClaim("image", "z+", "y-"),),
        simulated=True,
    )
    stamps = np.arange(len(state)) / HZ
    return EpisodeInput(
        "demo_0", "libero", state, action.astype(np.float32), names, tuple("xyzabcg"), stamps, HZ, "pick it up", claims
    )


def fixed_camera(seed: int) -> EpisodeInput:
    """A LIBERO-like episode with a fixed camera: z moves the image up, y moves it left."""
    rng = np.random.default_rng(seed)
    episode = libero_rows()
    state = episode.state.copy()
    state[:, :3] = smooth_motion(len(state), 3, rng) * 0.2
    images = scene(np.stack([-state[:, 1], -state[:, 2]], axis=1) * 60, seed)
    return changed(episode, state=state, thumbnails={"image": images})


def euler_angles(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [T, 3], roll, pitch, yaw of quaternions x, y, z, w."""
    x, y, z, w = q.T
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    return np.stack([roll, pitch, np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))], axis=1)


def turning(seed: int, form: str) -> EpisodeInput:
    """An episode whose end effector turns as the action commands, its rotation written in one form."""
    from fwdata.evidence.detectors.rotation import from_axis_angle, product, to_axis_angle

    rng = np.random.default_rng(seed)
    episode = libero_rows()
    rows = len(episode.state)
    command = np.zeros((rows, 3))
    for start in range(0, rows, 18):
        command[start : start + 12] = rng.normal(0, 0.12, 3) * np.hanning(12)[: rows - start, None]
    rotation = [from_axis_angle(np.array([[1.9, 1.6, 0.5]]))]
    for step in command[:-1]:
        rotation.append(product(from_axis_angle(step[None]), rotation[-1]))
    quaternions = np.concatenate(rotation)
    state, action = episode.state.copy(), episode.action.copy()
    state[:, 3:6] = to_axis_angle(quaternions) if form == "axis_angle" else euler_angles(quaternions)
    action[:, 3:6] = command
    return changed(episode, state=state, action=action)


def looked_at(turned: int | None = None, images: int | None = None) -> Sequence[EpisodeInput]:
    """The clean set with a look of the head camera; one episode upside down, or with the images of the one before."""
    tiles = np.random.default_rng(0).integers(20, 235, (8, 8, 3), np.uint8)
    found = []
    for n, episode in enumerate(clean_set()):
        first = 100 * (n - 1 if n == images else n)
        look = CameraLook(tiles[::-1] if n == turned else tiles, np.arange(first, first + 32, dtype=np.uint32))
        found.append(changed(episode, looks={"head": look}))
    return found


def glued(first: EpisodeInput, second: EpisodeInput, row: int = 70) -> EpisodeInput:
    """The first rows of one episode, and then all of another."""
    columns = {key: np.concatenate([getattr(first, key)[:row], getattr(second, key)]) for key in ("state", "action")}
    images = {n: np.concatenate([each[:row], second.thumbnails[n]]) for n, each in first.thumbnails.items()}
    return changed(first, **columns, thumbnails=images, timestamp_s=np.arange(len(columns["state"])) / HZ)


def rounded(episode: EpisodeInput) -> EpisodeInput:
    """The state in tenths."""
    return changed(episode, state=np.round(episode.state * 10) / 10)


def twice(episode: EpisodeInput) -> EpisodeInput:
    """Twenty rows are there again, in place of those that follow."""
    order = np.concatenate([np.arange(60), np.arange(40, 60), np.arange(80, 120)])
    return changed(episode, state=episode.state[order], action=episode.action[order])


def one_motion(count: int = 8, reverse: Sequence[int] = (), cycles: Sequence[str] = ("OCO",)) -> list[EpisodeInput]:
    """Episodes of one text, of an arm that takes one way each time, a little otherwise and at another pace: its gripper
    is open (O) and closed (C) in turn. reverse: episodes whose gripper counts the other way round in state and action;
    cycles: of the first episode, the second one, .. and again, each with a way of its own.
    """
    found = []
    for number in range(count):
        kind = number % len(cycles)
        rng, rows = np.random.default_rng(50 + number), 90 + 7 * number
        corners = np.random.default_rng(kind).normal(size=(7, 6)) + rng.normal(0, 0.15, (7, 6))
        times = np.concatenate([[0.0], np.cumsum(rng.uniform(0.6, 1.4, 6))])
        times, x = times / times[-1], np.linspace(0, 1, rows)
        arm = np.stack([np.interp(x, times, corner) for corner in corners.T], axis=1)
        grip = np.zeros(rows)
        for sign, at in zip(cycles[kind], (0.0, times[2], times[4]), strict=False):
            grip[x >= at] = float(sign == "O")
        both = 1 - grip if number in reverse else grip
        state = np.hstack([arm, np.convolve(np.pad(both, (6, 0), mode="edge"), np.ones(7) / 7, "valid")[:, None]])
        action = np.hstack([np.vstack([arm[2:], arm[-1:], arm[-1:]]), both[:, None]])
        names = (*(f"joint_{i}" for i in range(6)), "gripper")
        found.append(
            EpisodeInput(
                f"episode_{number}",
                "set",
                state.astype(np.float32),
                action.astype(np.float32),
                names,
                names,
                np.arange(rows) / HZ,
                HZ,
                "put the red block into the box",
                Conventions(rate=RateClaim(HZ, label=HZ)),
            )
        )
    return found


def grasping(seed: int, turned: bool = False, held: float = 0.3, **claims: Any) -> EpisodeInput:
    """An episode of two arms whose grippers begin open and close on a thing, which stops them `held` off their end.
    turned: commands and openings count the other way round. claims: what else is claimed."""
    episode = two_arms(seed, images=False)
    state, action, rows = episode.state.copy(), episode.action.copy(), np.arange(120)
    for column, first in ((3, 20 + seed), (7, 40 + seed)):
        command = 1.0 - ((rows >= first) & (rows < first + 40))
        opened = held + (1 - held) * np.convolve(np.pad(command, (6, 0), mode="edge"), np.ones(7) / 7, "valid")
        action[:, column], state[:, column] = (1 - command, 1 - opened) if turned else (command, opened)
    grippers = tuple(replace(claim, full=1.0) for claim in episode.claims.grippers)
    return with_claims(changed(episode, state=state, action=action), grippers=grippers, **claims)


def with_camera(episode: EpisodeInput, name: str, images: NDArray[np.uint8]) -> EpisodeInput:
    """The episode with other images of one camera."""
    return changed(episode, thumbnails={**episode.thumbnails, name: images})
