"""Options of LeRobot manifests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from converters.lerobot.grippers import Action, Scale
from converters.lerobot.mapping import Keys, Vectors
from converters.lerobot.surplus import Surplus
from fwdata.api import converter_options
from fwdata.errors import UsageError, did_you_mean
from fwdata.manifest import Manifest, Model, validate_model

FPS_TOLERANCE = 0.01
MAPPING = frozenset({"cameras", "vectors", "state", "action"})
"""Options that say which features are used."""


class LerobotOptions(Model):
    """Options of a LeRobot manifest.

    Example: fwdata convert lerobot DATASET_DIR --out data/mine.zarr --max-episodes 10
    """

    cameras: dict[str, Keys] = Field(default_factory=dict)
    """Camera name in the manifest -> feature key, or several tried in order. Needed unless --manifest is left out."""
    vectors: tuple[Vectors, ...] = ()
    """Alternatives for state and action; the first that fits a dataset is taken. `state`, `action` and their `_names`
    are short for one alternative that is tried first."""
    state: Keys = ()
    """Feature keys that make the state, in order; with `action` and the `_names`, an alternative that is tried before
    `vectors`."""
    action: Keys = ()
    """Feature keys that make the action, in order; see `state`."""
    state_names: tuple[str, ...] = ()
    """Names of the dimensions of `state`; empty: those of the dataset."""
    action_names: tuple[str, ...] = ()
    """Names of the dimensions of `action`; empty: those of the dataset."""
    revision: str | None = None
    """Branch, tag or commit of a dataset that is downloaded from the hub; null: its main branch."""
    fps_labels: tuple[float, ...] = ()
    """Rates (Hz) in info.json that stand for the manifest's own; published sets carry wrong labels."""
    robots: tuple[str, ...] = ()
    """When no manifest is named, this one only fits datasets whose robot_type begins with one of these or is unknown;
    empty: any robot."""
    robotwin_rows: bool = False
    """When no manifest is named, this one only fits datasets whose action is the next row's state, with grippers of 0
    .. 1."""
    embodiment: str | None = None
    """Robot that is stored with every episode; null: robot_type of info.json."""
    instruction: Literal["fine", "coarse"] = "fine"
    """"fine" trains every window on the text of its first row, "coarse" on the dataset's task."""
    lang: Literal["en", "zh"] = "en"
    """Which half of a text `Chinese@English` is used."""
    strict_lang: bool = False
    """Replace text that has no English half (Chinese, Japanese, Korean, ..) by the coarse task."""
    task: str | None = None
    """The coarse task of all episodes; null: the dataset's own."""
    unqualified: Literal["keep", "invalid"] = "keep"
    """Rows labelled unqualified are kept, or marked invalid so that no window reaches them."""
    gripper_scale: Scale = "recorded"
    """Scale of the gripper columns; "auto" decides per dataset from its targets, "recorded" does not look."""
    gripper_unit: bool = False
    """Store grippers as 0 closed .. 1 open; needs gripper_scale auto, 0-1 or 0-100."""
    gripper_action: Action = "recorded"
    """Sign of the action's last column: "signed" is LIBERO's -1 open / +1 close, "unit" 1 open / 0 close,
    "reversed" +1 open / -1 close, "auto" decides per dataset; all are stored as unit. "recorded" leaves the action
    alone."""
    colour: Literal["recorded", "swapped"] = "recorded"
    """"swapped" exchanges red and blue of every image (sets that were decoded the wrong way round)."""
    colour_check: bool = False
    """Warn where the first camera's first image looks like RoboTwin's plain scene with red and blue exchanged."""
    video: Literal["keep", "pixels"] = "keep"
    """"keep" stores the packets of videos as they are, "pixels" decodes them and stores every frame losslessly."""
    decoder: Literal["pyav", "decord"] = "pyav"
    """What decodes with video "pixels": "pyav", or "decord" (the extra `decord`) for plain H.264 and AV1."""
    extra_frames: Surplus = "auto"
    """Which frames of a video with more frames than rows belong to the rows: the "first", the "last", those of the
    rows' times ("by-time"); "auto" decides by the neighbouring episodes' videos and the rate, and leaves an episode out
    where they do not tell, "reject" leaves all out; "ignore" is the old name of "first"."""
    splits: tuple[str, ...] = ()
    """Only the episodes of these splits of info.json, such as train; empty: all episodes, in no split or in any."""
    max_episodes: int | None = Field(default=None, ge=1)
    """Only the first episodes of every dataset; null: all."""
    rate: float | None = Field(default=None, gt=0)
    """Rows per second (Hz), where info.json and the timestamps disagree; null: they decide."""
    copies: Literal["leave-out", "keep"] = "leave-out"
    """Datasets below one folder that hold the same recordings (a backup): all but one are left out, or all are kept."""
    recover: bool = False
    """Read a dataset whose writer was killed (no Parquet footer, no table of episodes, half videos) as far as complete
    episodes can be shown to exist."""

    @field_validator("cameras", mode="before")
    @classmethod
    def _keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: (keys,) if isinstance(keys, str) else keys for name, keys in value.items()}

    @field_validator("state", "action", mode="before")
    @classmethod
    def _one_key(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def variants(self) -> tuple[Vectors, ...]:
        """All alternatives for state and action, the short form first."""
        if not self.state and not self.action:
            return self.vectors
        short = {key: getattr(self, key) for key in ("state", "action", "state_names", "action_names")}
        return (validate_model(Vectors, short, "options state and action"), *self.vectors)


def options_of(manifest: Manifest) -> LerobotOptions:
    """The checked options of a manifest. UsageError for unknown ones, and for cameras that do not agree with it."""
    merged = converter_options(manifest.options, LerobotOptions().model_dump(), "lerobot")
    options = validate_model(LerobotOptions, merged, f"options of manifest {manifest.name!r}")
    if options.decoder != "pyav" and options.video == "keep":
        raise UsageError(f"option decoder={options.decoder} decodes frames: add --video pixels, or leave it out")
    if not (options.cameras and options.variants()):
        return options
    for name in options.cameras:
        if name not in manifest.cameras:
            raise UsageError(
                f"manifest {manifest.name!r}: option cameras maps {name!r}, which is none of the manifest's cameras"
                f"{did_you_mean(name, manifest.cameras)}"
            )
    missing = [name for name in manifest.cameras if name not in options.cameras]
    if missing:
        raise UsageError(f"manifest {manifest.name!r}: option cameras names no feature for camera {missing[0]!r}")
    return options


def rate_agrees(fps: float, manifest: Manifest, options: LerobotOptions) -> bool:
    """Whether the rate of info.json is the manifest's, its label, or one of option fps_labels; option rate decides."""
    if options.rate is not None:
        return abs(options.rate - manifest.fps.hz) <= FPS_TOLERANCE * manifest.fps.hz
    rates = (manifest.fps.hz, manifest.fps.nominal or manifest.fps.hz, *options.fps_labels)
    return any(abs(fps - rate) <= FPS_TOLERANCE * rate for rate in rates)
