"""Images of the sample world: soft-edged shapes on the table plane, seen straight from above.

Every camera looks down on the table: the head camera sees all of it, a wrist camera sees the surroundings of its hand.
All shapes lie in the plane z = 0, so a pinhole above the table sees exactly these images (`Viewpoint.intrinsic`,
`Viewpoint.position`). Drawing a 64x48 frame takes about 0.6 ms on one core.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.sample.world import Layout, Point, Scene, State, arm_slice, elbow_and_hand, pressed_colours

type Image = NDArray[np.uint8]
type Colour = tuple[float, float, float]

HEAD_CENTRE: Point = (0.0, 0.25)
HEAD_WIDTH = 0.88
WRIST_WIDTH = 0.50
HEAD_HEIGHT = 1.2
WRIST_HEIGHT = 0.4
BUTTON_RADIUS = 0.075

_FLOOR: Colour = (96, 92, 98)
_TABLE: Colour = (226, 214, 194)
_ARM: Colour = (84, 94, 112)
_JOINT: Colour = (150, 160, 176)
_OPEN: Colour = (250, 196, 40)
_CLOSED: Colour = (64, 200, 96)
_FINGER: Colour = (40, 40, 48)
_RIM: Colour = (72, 70, 76)
_LIT: Colour = (255, 250, 210)
_BUTTONS: dict[str, Colour] = {"red": (216, 36, 40), "blue": (36, 76, 216)}


@dataclass(frozen=True)
class Viewpoint:
    """What a camera sees: a rectangle of the table plane with square pixels."""

    centre: Point
    """Middle of the rectangle on the table, m."""
    width: float
    """Width of the rectangle, m."""
    height_above: float
    """Height of the camera above the table, m."""
    pixels: tuple[int, int]
    """(height, width) of its images."""

    @property
    def scale(self) -> float:
        """Metres per pixel."""
        return self.width / self.pixels[1]

    def intrinsic(self) -> NDArray[np.float32]:
        """float32 [3, 3]: pinhole matrix, pixels, of the camera that sees this."""
        focal = self.height_above / self.scale
        rows = [[focal, 0.0, self.pixels[1] / 2], [0.0, focal, self.pixels[0] / 2], [0.0, 0.0, 1.0]]
        return np.array(rows, np.float32)

    def position(self) -> tuple[float, float, float]:
        """Place of the camera in the world; it looks along -z with world y up in the image."""
        return self.centre[0], self.centre[1], self.height_above


def camera_names(layout: Layout) -> tuple[str, ...]:
    """`head_camera`, then one wrist camera per arm."""
    return ("head_camera", *(f"{arm.name}_camera" for arm in layout.arms))


def camera_view(layout: Layout, state: State, camera: str, pixels: tuple[int, int]) -> Viewpoint:
    """The view of a camera in this state; pixels = (height, width)."""
    if camera == "head_camera":
        return Viewpoint(HEAD_CENTRE, HEAD_WIDTH, HEAD_HEIGHT, pixels)
    index = camera_names(layout).index(camera) - 1
    _, hand = elbow_and_hand(layout.arms[index], state[arm_slice(index)])
    return Viewpoint(hand, WRIST_WIDTH, WRIST_HEIGHT, pixels)


def render_all(scene: Scene, state: State, pixels: tuple[int, int] = (48, 64)) -> dict[str, Image]:
    """uint8 [H, W, 3] true RGB of every camera; pixels = (height, width)."""
    return {name: render(scene, state, name, pixels) for name in camera_names(scene.layout)}


def render(scene: Scene, state: State, camera: str, pixels: tuple[int, int] = (48, 64)) -> Image:
    """uint8 [H, W, 3] true RGB of one camera; pixels = (height, width)."""
    canvas = _Canvas(camera_view(scene.layout, state, camera, pixels))
    pressed = pressed_colours(scene, state)
    for button in scene.buttons:
        colour = _BUTTONS[button.colour]
        canvas.disk(button.centre, BUTTON_RADIUS + 0.014, _LIT if button.colour in pressed else _RIM)
        canvas.disk(button.centre, BUTTON_RADIUS, colour)
    for index, arm in enumerate(scene.layout.arms):
        pose = state[arm_slice(index)]
        elbow, hand = elbow_and_hand(arm, pose)
        canvas.capsule(arm.base, elbow, 0.026, _ARM)
        canvas.capsule(elbow, hand, 0.021, _ARM)
        canvas.disk(arm.base, 0.040, _JOINT)
        canvas.disk(elbow, 0.028, _JOINT)
        _draw_hand(canvas, hand, pose)
    return canvas.image()


def _draw_hand(canvas: _Canvas, hand: Point, pose: NDArray[np.floating]) -> None:
    """A disk whose colour tells the gripper, with two fingers that come together."""
    gripper = min(max(float(pose[6]), 0.0), 1.0)
    ahead = float(pose[0] + pose[1] + pose[5]) + math.pi / 2
    colour = tuple(gripper * a + (1 - gripper) * b for a, b in zip(_OPEN, _CLOSED, strict=True))
    canvas.disk(hand, 0.044, _FINGER)
    canvas.disk(hand, 0.036, (colour[0], colour[1], colour[2]))
    fx, fy = math.cos(ahead), math.sin(ahead)
    gap = 0.010 + 0.022 * gripper
    for side in (-gap, gap):
        root = (hand[0] + 0.030 * fx - side * fy, hand[1] + 0.030 * fy + side * fx)
        canvas.capsule(root, (root[0] + 0.032 * fx, root[1] + 0.032 * fy), 0.010, _FINGER)


class _Canvas:
    """A float image of the table that shapes are laid on, edges blended over 1.2 pixels."""

    def __init__(self, view: Viewpoint) -> None:
        self._view = view
        self._soft = 1.2 * view.scale
        self._x, self._y = _pixel_centres(view)
        self._pixels = _background(view) if view.centre == HEAD_CENTRE else _paint_background(view)

    def disk(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        self.capsule(centre, centre, radius, colour)

    def capsule(self, start: Point, end: Point, radius: float, colour: Colour) -> None:
        """A thick segment with round ends."""
        columns, rows = self._box(start, end, radius + self._soft)
        if columns.start >= columns.stop or rows.start >= rows.stop:
            return
        dx, dy = self._x[columns] - start[0], (self._y[rows] - start[1])[:, None]
        sx, sy = end[0] - start[0], end[1] - start[1]
        length2 = sx * sx + sy * sy
        if length2 > 0.0:
            along = dx * (sx / length2) + dy * (sy / length2)
            np.minimum(np.maximum(along, 0.0, out=along), 1.0, out=along)
            dx, dy = dx - along * sx, dy - along * sy
        cover = np.sqrt(dx * dx + dy * dy)
        cover *= -1.0 / self._soft
        cover += 0.5 + radius / self._soft
        np.minimum(np.maximum(cover, 0.0, out=cover), 1.0, out=cover)
        target = self._pixels[rows, columns]
        target += cover[:, :, None] * (np.array(colour, np.float32) - target)

    def image(self) -> Image:
        """The finished image, uint8."""
        return (self._pixels + 0.5).astype(np.uint8)

    def _box(self, start: Point, end: Point, margin: float) -> tuple[slice, slice]:
        """Columns and rows that a segment with this margin can touch."""
        (height, width), scale, (cx, cy) = self._view.pixels, self._view.scale, self._view.centre
        left, right = (min(start[0], end[0]) - margin - cx) / scale, (max(start[0], end[0]) + margin - cx) / scale
        top, bottom = (cy - margin - max(start[1], end[1])) / scale, (cy + margin - min(start[1], end[1])) / scale
        columns = slice(max(math.floor(left + width / 2), 0), min(math.ceil(right + width / 2), width))
        rows = slice(max(math.floor(top + height / 2), 0), min(math.ceil(bottom + height / 2), height))
        return columns, rows


def _pixel_centres(view: Viewpoint) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """World x of the columns (ascending) and world y of the rows (descending: the first row is the farthest)."""
    rows, columns = view.pixels
    x = view.centre[0] + (np.arange(columns) + 0.5 - columns / 2) * view.scale
    y = view.centre[1] - (np.arange(rows) + 0.5 - rows / 2) * view.scale
    return x.astype(np.float32), y.astype(np.float32)


def _background(view: Viewpoint) -> NDArray[np.float32]:
    return _cached_background(view).copy()


@functools.lru_cache(maxsize=8)
def _cached_background(view: Viewpoint) -> NDArray[np.float32]:
    return _paint_background(view)


def _paint_background(view: Viewpoint) -> NDArray[np.float32]:
    """float32 [H, W, 3]: the table with its faint soft squares, and the floor around it."""
    x, y = _pixel_centres(view)
    soft = 1.2 * view.scale
    across = np.clip(0.5 + (0.46 - np.abs(x)) / soft, 0.0, 1.0)
    along = np.clip(0.5 + (0.34 - np.abs(y - 0.25)) / soft, 0.0, 1.0)
    table = (along[:, None] * across)[:, :, None]
    squares = (np.cos(2 * np.pi / 0.22 * (y - 0.25))[:, None] * np.cos(2 * np.pi / 0.22 * x))[:, :, None]
    floor = np.array(_FLOOR, np.float32)
    return np.asarray(floor + table * (np.array(_TABLE, np.float32) + 9.0 * squares - floor), np.float32)
