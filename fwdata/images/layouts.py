"""Stitch layouts: where every camera stands in the stitched image.

    horizontal   [ c0 | c1 | .. ]            size = (h, n * w)
    vertical     c0 over c1 over ..          size = (n * h, w)
    robotwin     head over [left | right]    size = (H, W): head 2H/3 x W, wrists H/3 x W/2 each

Another layout is one file, `layouts/NAME.py` in FWDATA_PLUGINS or an entry point of `fwdata.layouts`, with an object
`LAYOUT` of a class that has `tiles` (see `fwdata.plugins`). What no tile covers is black.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from fwdata.errors import UsageError, did_you_mean
from fwdata.plugins import LAYOUTS

type Size = tuple[int, int]
"""(height, width) in pixels."""

type Tile = tuple[int, int, int, int]
"""(top, left, height, width) in pixels of the stitched image."""


REACH = 16
"""How many steps from a size `nearest_size` looks on each side: 12 cameras divide a side within so many."""


class StitchLayout(ABC):
    """How cameras are arranged."""

    @abstractmethod
    def tiles(self, cameras: int, camera_size: Size, size: Size) -> list[Tile]:
        """The place of every camera, in camera order. ValueError, continuing the layout's name, where it cannot be."""

    def size_of(self, cameras: int, camera_size: Size) -> Size | None:
        """Size of the stitched image, where it follows from that of the cameras; else None."""
        return None

    def camera_size_of(self, cameras: int, size: Size) -> Size | None:
        """Size of the cameras, where it follows from that of the stitched image; else None. ValueError if none fits."""
        return None


class Row(StitchLayout):
    """Cameras of one size side by side, or one over the other."""

    def __init__(self, axis: int) -> None:
        self._axis = axis

    def tiles(self, cameras: int, camera_size: Size, size: Size) -> list[Tile]:
        """See StitchLayout."""
        joined = self.size_of(cameras, camera_size)
        if joined != size:
            raise ValueError(f"the joined size {joined} of {cameras} cameras differs from size {size}")
        h, w = camera_size
        return [(i * h, 0, h, w) if self._axis == 0 else (0, i * w, h, w) for i in range(cameras)]

    def size_of(self, cameras: int, camera_size: Size) -> Size:
        """See StitchLayout."""
        h, w = camera_size
        return (h * cameras, w) if self._axis == 0 else (h, w * cameras)

    def camera_size_of(self, cameras: int, size: Size) -> Size:
        """See StitchLayout."""
        height, width = size
        if size[self._axis] % cameras:
            side = ("height", "width")[self._axis]
            raise ValueError(f"the {side} {size[self._axis]} of size cannot be divided among {cameras} cameras")
        return (height // cameras, width) if self._axis == 0 else (height, width // cameras)


class RoboTwin(StitchLayout):
    """The head camera over both wrists, as Fast-WAM trains on RoboTwin."""

    def tiles(self, cameras: int, camera_size: Size, size: Size) -> list[Tile]:
        """See StitchLayout."""
        if cameras != 3:
            raise ValueError(
                f"layout 'robotwin' needs exactly 3 cameras (head, left, right), found {cameras}; 'horizontal' and "
                "'vertical' take any number"
            )
        height, width = size
        if height % 3 or width % 2:
            raise ValueError(f"layout 'robotwin' needs a height divisible by 3 and an even width, found {size}")
        top, half = height * 2 // 3, width // 2
        return [(0, 0, top, width), (top, 0, height - top, half), (top, half, height - top, half)]


BUILT_IN: dict[str, StitchLayout] = {"horizontal": Row(1), "vertical": Row(0), "robotwin": RoboTwin()}


def layout_names() -> list[str]:
    """Names that `stitch.layout` takes."""
    return [*BUILT_IN, *(name for name in LAYOUTS.names() if name not in BUILT_IN)]


def is_layout(name: str) -> bool:
    """Whether `stitch.layout` takes a name."""
    return name in BUILT_IN or name in LAYOUTS.names()


def find_layout(name: str) -> StitchLayout:
    """The layout of a name. ValueError naming those that there are; UsageError for one that cannot be loaded."""
    found = BUILT_IN.get(name) or LAYOUTS.load(name)
    if found is None:
        *others, last = map(repr, layout_names())
        raise ValueError(f"must be {', '.join(others)} or {last}, found {name!r}{_hint(name)}")
    if not isinstance(found, StitchLayout):
        raise UsageError(f"layout {name!r}: LAYOUT must be a StitchLayout object, found {found!r}")
    return found


def _hint(name: str) -> str:
    hint = did_you_mean(name, layout_names())
    return hint if "did you mean" in hint else ""


def nearest_size(name: str, cameras: int, camera_size: Size, size: Size, step: int) -> Size | None:
    """The stitched size nearest to `size` that a layout takes and whose sides are multiples of `step`; None: none near.

    camera_size: of the cameras, in pixels, where the layout does not compute it from the stitched size.
    """
    near = [range(max(1, side // step - REACH), side // step + REACH + 1) for side in size]
    found = [(h * step, w * step) for h in near[0] for w in near[1]]
    found.sort(key=lambda one: (abs(one[0] - size[0]) + abs(one[1] - size[1]), one))
    return next((one for one in found if _takes(name, cameras, camera_size, one)), None)


def nearest_advice(layout: str, cameras: int, camera_size: Size, size: Size, step: int) -> str:
    """The nearest size that can be stitched and encoded, as the end of a message; empty where none is near."""
    found = nearest_size(layout, cameras, camera_size, size, step)
    if found is None:
        return ""
    return f"; the nearest size that layout {layout!r} takes for its cameras is [{found[0]},{found[1]}]"


def fitting_advice(layout: str, cameras: int, camera_size: Size, size: Size, step: int) -> str:
    """What to give where a stitched size and that of the cameras do not fit together, as the end of a message."""
    joined = find_layout(layout).size_of(cameras, camera_size)
    near = nearest_advice(layout, cameras, camera_size, size, step)
    if joined is None or joined == size:
        return near
    if not any(side % step for side in joined):
        return f"; give size as [{joined[0]},{joined[1]}], or one of both alone"
    return near and f"{near}; give it without camera_size, which follows from it"


def _takes(name: str, cameras: int, camera_size: Size, size: Size) -> bool:
    try:
        checked_tiles(name, cameras, find_layout(name).camera_size_of(cameras, size) or camera_size, size)
    except ValueError:
        return False
    return True


def checked_tiles(name: str, cameras: int, camera_size: Size, size: Size) -> list[Tile]:
    """The tiles of a layout. ValueError where it does not fit, or puts a camera outside of the image."""
    tiles = find_layout(name).tiles(cameras, camera_size, size)
    if len(tiles) != cameras:
        raise ValueError(f"layout {name!r} has {len(tiles)} tiles for {cameras} cameras")
    for top, left, height, width in tiles:
        if min(top, left) < 0 or min(height, width) < 1 or top + height > size[0] or left + width > size[1]:
            raise ValueError(
                f"layout {name!r}: the tile of {height}x{width} pixels at row {top}, column {left} is not inside {size}"
            )
    return tiles
