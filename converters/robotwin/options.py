"""Options of the RoboTwin converter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from converters.robotwin import cameras, paths
from fwdata.manifest import Model


class RobotwinOptions(Model):
    """Options of a RoboTwin manifest.

    Example: fwdata convert robotwin RAW_DIR --out data/robotwin.zarr --settings clean --max-episodes-per-task 5
    """

    tasks: tuple[str, ...] | None = None
    """Only these tasks; null: all."""
    settings: tuple[paths.Setting, ...] | None = None
    """Only these settings; null: all. A setting that the path does not tell is "unknown"."""
    default_setting: paths.Setting = paths.UNKNOWN
    """Setting of recordings whose path does not tell it (released v1.0 archives)."""
    embodiment: str | None = None
    """Only this robot; also taken for recordings whose path does not tell theirs. null: all recordings must be of one
    robot."""
    max_episodes_per_task: int | None = Field(default=None, ge=1)
    """Only the first episodes of every task, by setting and index; null: all."""
    actions: Literal["next_state", "recorded"] = "next_state"
    """"next_state" takes the next row's joint targets, as Fast-WAM's data do; "recorded" keeps the actions of v1.0
    files, whatever they are."""
    colour: cameras.Colour = "auto"
    """"auto" goes by each buffer's marker; "rgb" and "swapped" force the order of every buffer."""
    instruction: Literal["first", "seeded"] = "first"
    """Which of the seen texts is canonical: the first one, or one picked by a hash of the episode's id."""
