"""The draft that a new converter's files are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

type Kind = Literal["folder", "hdf5", "npz", "bag"]
type TextPlace = Literal["file", "column", "attribute", "array"]

DEFAULT_FPS = 10.0
"""Rate in Hz of a recording that holds no time."""


@dataclass(frozen=True)
class Array:
    """An array of a recording."""

    key: str
    """Its name in the file."""
    shape: tuple[int, ...]
    """Rows first."""
    dtype: str
    """NumPy's name of the element type."""


@dataclass(frozen=True)
class Draft:
    """What a converter's first version is written from."""

    kind: Kind
    """How recordings lie on disk."""
    cameras: Mapping[str, str]
    """Camera name -> key in the recording (a folder of images, a video, or an array)."""
    state: tuple[str, ...]
    """Keys (arrays) or columns that make the state."""
    action: tuple[str, ...]
    """Keys or columns that make the action."""
    size: tuple[int, int]
    """(height, width) of the first camera."""
    fps: float
    """Rate in Hz; from `time` where there is one, else `DEFAULT_FPS`."""
    found: tuple[str, ...] = ()
    """Lines that list everything the recording holds."""
    sample: Path | None = None
    """The recording itself, for a fixture; None: one is made up."""
    arrays: tuple[Array, ...] = ()
    """Arrays of an HDF5 or NPZ file."""
    table: str = "rows.csv"
    """Of a folder: name of the CSV, NPZ or Parquet file with its rows."""
    text: str = ""
    """Name of the file, column, attribute or array with the instruction; empty: the name of its task."""
    text_in: TextPlace = "file"
    """What `text` names."""
    time: str = ""
    """Key or column with the time of every row; empty: rows are 1/fps apart."""
    time_ns: int = 10**9
    """Nanoseconds of the unit of `time`."""
    unused: tuple[str, ...] = ()
    """Keys or columns of numbers, one per row, that the draft does not read."""

    def open_questions(self, manifest: str) -> list[str]:
        """What the recording does not say and the draft assumes, one sentence each; manifest: the file to correct."""
        found = []
        if self.unused:
            found.append(f"neither in STATE nor in ACTION: {', '.join(self.unused)}; add what belongs there")
        if self.sample is None:
            return found
        if self.action == self.state:
            found.append("no action was found: ACTION repeats STATE; name what was commanded")
        if self.kind != "bag" and not self.time:
            found.append(f"no time of the rows was found: fps is {self.fps:g} in {manifest}; correct it")
        if not self.text:
            found.append("no instruction was found: the name of an episode's folder is taken; change it in `read`")
        return found


EXAMPLE = Draft(
    kind="folder",
    cameras={"front": "front"},
    state=("state.x", "state.y", "state.gripper"),
    action=("action.x", "action.y", "action.gripper"),
    size=(48, 64),
    fps=10.0,
)
"""Without a recording: a folder per episode with rows.csv and a folder of images per camera."""
