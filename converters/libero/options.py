"""Options of the LIBERO converter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from converters.libero import text
from converters.libero.gripper import GripperRule
from converters.libero.orientation import RotationOption
from fwdata.images.jpeg import MAX_SIDE
from fwdata.manifest import Model

type Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class LiberoOptions(Model):
    """Options of a LIBERO manifest.

    Example: fwdata convert libero RAW_DIR --out data/libero.zarr --suites libero_goal,libero_spatial
    """

    rotation: RotationOption = "auto"
    """How images are turned: "auto" decides for each file and camera; rot180, flip_vertical, mirror and none are
    applied to the stored frames as they are; one for all cameras, or by camera: image=rot180,wrist_image=none."""
    gripper: GripperRule = "auto"
    """Which way the gripper's command counts: "auto" measures it, plus_closes is LIBERO's own -1 open / +1 close."""
    absolute_actions: bool = False
    """Take action columns 0 to 5 as absolute targets; needs a manifest without normalisation.delta_actions."""
    instruction: text.Preference = "file_name"
    """"file_name" takes the file name's text for published tasks, and for others that of `problem_info`, else of the
    BDDL text; "problem_info" prefers that everywhere, "file_name_always" takes the name everywhere."""
    filter_noops: bool = False
    """Drop rows whose action does nothing, by the rule of the published no-noops data."""
    pairing: Literal["recorded", "next_action"] = "recorded"
    """"recorded" keeps observation t with action t; "next_action" pairs observation t of raw files, which is from after
    action t, with action t + 1, and loses one row."""
    resize: tuple[Side, Side] | None = None
    """(height, width) in pixels of all stored images, bilinear with antialias; null keeps the source's resolution, and
    stitching resizes once, as Fast-WAM does."""
    suites: tuple[str, ...] | None = None
    """Only these suites, each named by itself or by its folder; null: all."""
    tasks: tuple[str, ...] | None = None
    """Only these tasks; null: all."""
    mask: tuple[str, ...] | None = None
    """Only demonstrations in one of these filters of the file's group `mask`; null: the group is not used."""
    other_demos: bool = False
    """Also take groups with other names than demo_N that hold actions."""
    include_failed: bool = False
    """Also take demonstrations of which a name, a folder, an attribute or a dataset says that they failed."""
    max_episodes_per_task: int | None = Field(default=None, ge=1)
    """Only the first demonstrations of every task file; null: all."""
