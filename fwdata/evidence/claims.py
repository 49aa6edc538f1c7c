"""What a converter decided about one episode, as typed records: the claims that detectors compare with the data.

Every field may stay empty: a detector without a claim measures where it can and contradicts nothing. Imports no
library, so that the converter contract stays cheap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

type ActionMeaning = Literal["absolute", "delta", "next_state"]
"""absolute: a target in the state's units. delta: a change. next_state: exactly the state of the next row."""

type GripperScale = Literal["signed", "unit", "percent", "metres", "degrees"]
"""-1 .. 1, 0 .. 1, 0 .. 100, a width of at most 0.12 m, or an angle in degrees."""

type RotationForm = Literal["axis_angle", "quaternion_xyzw", "quaternion_wxyz", "euler_xyz", "euler_zyx"]
"""euler_xyz: roll, pitch, yaw about fixed axes; euler_zyx: yaw, pitch, roll in this column order."""

type Axis = Literal["x+", "x-", "y+", "y-", "z+", "z-"]


@dataclass(frozen=True)
class GripperClaim:
    """One gripper: where its command and its measured opening are, and which way they count."""

    name: str
    """Name for messages, e.g. "left_gripper"."""
    action: int | None = None
    """Action column of the command; None: the action has none."""
    state: tuple[int, ...] = ()
    """State columns of the measured opening; their signed sum grows when the gripper opens."""
    signs: tuple[float, ...] = ()
    """Sign of each state column in that sum; () counts every column as +1."""
    polarity: Literal[1, -1] | None = None
    """+1: a larger command opens; -1: a larger command closes; None: not decided."""
    action_scale: GripperScale | None = None
    """Scale of the command; None: not decided."""
    state_scale: GripperScale | None = None
    """Scale of the state columns; None: not decided."""
    full: float | None = None
    """What the measured opening reads when it is fully open, 0 when it is closed; None: not known."""


@dataclass(frozen=True)
class RotationClaim:
    """One rotation among the state columns."""

    columns: tuple[int, ...]
    """State columns of the rotation: three, or four of a quaternion."""
    form: RotationForm
    """How the columns are to be read, angles in rad."""
    unwrapped: bool = False
    """Whether the layout promises that no component jumps by a full turn between rows."""
    command: tuple[int, ...] = ()
    """Action columns of the commanded rotation (axis-angle increments, world frame); () where there are none."""
    reference: NDArray[np.float32] | None = field(default=None, compare=False)
    """float32 [T, 4], unit quaternions x, y, z, w of the same rotation from the same file; None where it has none."""


@dataclass(frozen=True)
class ArmClaim:
    """One arm: which numbers move it, and which camera rides on it."""

    name: str
    """Name for messages, e.g. "left"."""
    state: tuple[int, ...]
    """State columns of the arm's joints or end effector, gripper excluded."""
    camera: str | None = None
    """Camera mounted on this arm; None where there is none."""


@dataclass(frozen=True)
class CameraClaim:
    """How one camera's image lies, where the layout tells it."""

    name: str
    """Name of the camera."""
    up: Axis | None = None
    """World axis that points up in the image; None: not known."""
    right: Axis | None = None
    """World axis that points right in the image; None: not known."""
    mounted: bool = False
    """Whether the camera rides on an arm: up and right are then those of the apparent motion of the scene."""
    motion: NDArray[np.float32] | None = field(default=None, compare=False)
    """float32 [T, 2], motion right and down from the row before, in any unit, of what the image shows, as recorded
    camera poses predict it; used instead of up and right. None: the recording has no poses."""
    place: NDArray[np.float32] | None = field(default=None, compare=False)
    """float32 [T, 2], where in the image what moves since the row before is expected by camera poses, from -1 (left,
    top) to 1 (right, bottom); NaN where nothing tells. None: the recording has no poses."""
    chosen: bool = False
    """Whether the user's own option says how it is turned: a direction that contradicts the layout then only warns."""


@dataclass(frozen=True)
class Bound:
    """A domain that a named layout's state must stay within: low <= sum(weights * state[:, columns]) <= high."""

    name: str
    """Name for messages, e.g. "finger_1 (m)"."""
    columns: tuple[int, ...]
    """State columns that are summed."""
    low: float
    """Smallest value, in the state's unit."""
    high: float
    """Largest value, in the state's unit."""
    weights: tuple[float, ...] = ()
    """Weight of each column; () weighs every column by 1."""


@dataclass(frozen=True)
class UnitClaim:
    """A unit that a named layout promises for state columns, told by their size: none exceeds the limit in it."""

    name: str
    """Name for messages, e.g. "left arm"."""
    columns: tuple[int, ...]
    """State columns."""
    unit: Literal["m", "rad"]
    """The unit."""
    limit: float
    """Largest size of a value in that unit which the robot can reach, with a margin."""


@dataclass(frozen=True)
class RateClaim:
    """Rates in Hz that are stated for the rows of one episode."""

    decided: float
    """Rate that the store records."""
    label: float | None = None
    """Rate that the source's own metadata state; None: it states none."""
    known_labels: tuple[float, ...] = ()
    """Labels that the layout is documented to carry for rows of the decided rate."""
    container: float | None = None
    """Rate of the video container; None: none, or not read."""
    clock: float | None = None
    """Rate that a clock among the recorded numbers shows, such as a simulator's time; None: there is none."""
    measured_times: bool = False
    """Whether the time stamps are measured; False where they are row number / rate and prove nothing."""


@dataclass(frozen=True)
class ColourClaim:
    """Whether anything of the recording shows the order of red and blue."""

    verified_by: str | None = None
    """What showed it, e.g. "video of the episode" or "marker XPL-RGB1"; None: nothing did."""
    reason: str = ""
    """Why nothing did, for the line that counts unverified episodes."""


@dataclass(frozen=True)
class Conventions:
    """Everything that a converter decided about the meaning of one episode's numbers and images."""

    layout: str | None = None
    """Named layout that is claimed, e.g. "libero"; None for a plain mapping, whose scales only warn."""
    action: ActionMeaning | None = None
    """What the action columns mean; None: not decided."""
    pairs: tuple[tuple[int, int], ...] | None = None
    """(action column, state column) that speak of the same quantity; None: found by equal names, else by position."""
    grippers: tuple[GripperClaim, ...] = ()
    """Grippers, in column order."""
    rotations: tuple[RotationClaim, ...] = ()
    """Rotations among the state columns."""
    arms: tuple[ArmClaim, ...] = ()
    """Arms, left before right."""
    position: tuple[int, int, int] | None = None
    """State columns of the end effector position x, y, z in m, world frame, of a single-arm layout; None: none."""
    cameras: tuple[CameraClaim, ...] = ()
    """Cameras whose orientation the layout tells."""
    bounds: tuple[Bound, ...] = ()
    """Domains of a named layout."""
    units: tuple[UnitClaim, ...] = ()
    """Units of a named layout that the size of the numbers can show."""
    step: tuple[float, float] | None = None
    """Least and most that the paired state columns change in a row per unit of a delta action; None: not known."""
    effect_row: int | None = None
    """Rows after a commanded change in which the state's change from the row before can first show it: 0 where a row's
    state is from after its action, 1 where it is from before; None: not known."""
    rate: RateClaim | None = None
    """Rates that are stated; None: not decided."""
    colour: ColourClaim | None = None
    """Whether the order of red and blue was shown; None: there are no images, or their order is not in doubt."""
    reordered: bool = False
    """Whether the view stitches the fixed and the wrist camera the other way round, which makes it good where their
    images are exchanged in the recordings."""
    one_start: bool = False
    """Whether every recording of the layout begins in the robot's one start pose."""
    simulated: bool = False
    """Whether images are rendered in step with the rows; lags of real cameras need more episodes."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Detector name, with a space and the subject where it is of one alone ("camera_up_down image"), or with an arrow
    and what must be measured ("gripper_scale -> 0 .. 1"), or two with a plus, for where both are contradicted -> what
    would agree with the opposite of what was decided: a flag as typed ("--rotation image=mirror"), else a manifest key
    ("fps.hz: 30")."""
