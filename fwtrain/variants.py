"""Variants as data, and who may attend to whom: one description for masks and for block attention.

Tokens come in four groups. `first`: the clean first latent frame. `future`: the later latent frames (noised).
`copy`: in training only, the later frames once more as conditioning. `action`: the noised actions.
No video token ever sees an action token. The first frame sees only itself, so the conditioning copy shares it.

A variant is one `Variant` in `VARIANTS`; training, sampling, recipes, comparisons, plans, the attention check and the
benchmarks take it from there. `register` adds one in a program; `variants/NAME.py` in FWDATA_PLUGINS with an object
VARIANT adds one for every command, and so does an installed package by an entry point (see `fwdata.plugins`):

    [project.entry-points."fwtrain.variants"]
    later-only = "mypackage:LATER"

The model keeps video tokens in the order future, first, copy, which makes every visible set one contiguous span:
attention is then a few dense calls without a mask. `allowed` gives the same rules as the official boolean matrices.
Source: src/fastwam/models/wan22/{mot,fastwam,fastwam_joint,fastwam_idm,fastwam_optional_idm}.py of the official code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from fwdata import plugins
from fwdata.errors import UsageError

Group = Literal["future", "first", "copy", "action"]
Phase = Literal["train", "infer", "video"]
Sampler = Literal["first-frame", "joint", "video-first"]

VIDEO_ORDER: tuple[Group, ...] = ("future", "first", "copy")
VIDEO_SEES: dict[Group, tuple[Group, ...]] = {
    "future": ("future", "first"),
    "first": ("first",),
    "copy": ("first", "copy"),
}


COND_NOISE, MODE_SHARE = "cond_noise_prob", "action_idm_prob"
"""Probability keys of a recipe's `model` section and of `ModelConfig`; the names are upstream's."""


@dataclass(frozen=True)
class Mode:
    """One way in which actions depend on the video."""

    name: str
    """What `--mode` takes."""
    sees: tuple[Group, ...]
    """Video groups that an action token sees in training, besides all actions."""
    sampler: Sampler
    """first-frame: actions against the cached first frame. joint: video and actions advance together. video-first: the
    video is sampled first, then actions against the finished video."""

    def __post_init__(self) -> None:
        unknown = [group for group in self.sees if group not in VIDEO_ORDER]
        if unknown:
            raise ValueError(f"mode {self.name!r}: unknown group {unknown[0]!r}; known: {', '.join(VIDEO_ORDER)}")
        if (self.sampler == "first-frame") != (self.sees == ("first",)):
            raise ValueError(f"mode {self.name!r}: sampler first-frame is for actions that see ('first',) alone")
        if "copy" in self.sees and (self.sampler != "video-first" or "future" in self.sees):
            raise ValueError(
                f"mode {self.name!r}: a copy stands for the finished video: sampler video-first, no future"
            )

    @property
    def sees_sampling(self) -> tuple[Group, ...]:
        """Video groups that an action token sees in sampling: the finished video stands where the copy was."""
        return tuple(name for name in VIDEO_ORDER if name in self.sees or (name == "future" and "copy" in self.sees))

    @property
    def copy(self) -> bool:
        """Whether a training sample of this mode has the conditioning copy of the video."""
        return "copy" in self.sees


@dataclass(frozen=True)
class Variant:
    """One way to wire the experts: a name and the modes that its actions are trained and sampled in."""

    name: str
    """What `model.variant` of a recipe takes."""
    modes: tuple[Mode, ...]
    """One, or two: every training sample then takes the first with probability `action_idm_prob`, else the second; the
    first is the default in sampling."""
    video_loss: bool = True
    """Whether the video velocity is trained (co-training)."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Defaults of the probability keys the variant reads: `cond_noise_prob` (share of conditioning videos that are
    noised) with a copy, `action_idm_prob` (share of samples trained in the first mode) with two modes."""

    def __post_init__(self) -> None:
        if len(self.modes) not in (1, 2) or len({mode.name for mode in self.modes}) != len(self.modes):
            raise ValueError(f"variant {self.name!r} needs one mode, or two of different names")
        wanted = {key for key, on in ((COND_NOISE, self.copy), (MODE_SHARE, len(self.modes) > 1)) if on}
        if set(self.probabilities) != wanted:
            raise ValueError(
                f"variant {self.name!r} needs defaults of the probability keys {sorted(wanted)}, "
                f"found {sorted(self.probabilities)}"
            )

    @property
    def copy(self) -> bool:
        """Whether training has conditioning copies of the video."""
        return any(mode.copy for mode in self.modes)

    @property
    def needs_future(self) -> bool:
        """Whether actions depend on future latents in training."""
        return any(mode.sees != ("first",) for mode in self.modes)

    @property
    def mode_names(self) -> tuple[str, ...]:
        """Names of the modes, the default of sampling first."""
        return tuple(mode.name for mode in self.modes)

    def mode(self, name: str | None = None) -> Mode:
        """The mode of a name, the first for None. ValueError names the modes there are."""
        found = next((mode for mode in self.modes if name in (None, mode.name)), None)
        if found is None:
            raise ValueError(f"variant {self.name!r} has no mode {name!r}; it has {', '.join(self.mode_names)}")
        return found


def title(variant: Variant, mode: str) -> str:
    """`optional-idm (first-frame)`; the variant's name alone where it has one mode."""
    return variant.name if len(variant.modes) == 1 else f"{variant.name} ({mode})"


FIRST_FRAME = Mode("first-frame", ("first",), "first-frame")
JOINT = Mode("joint", ("future", "first"), "joint")
IDM = Mode("idm", ("first", "copy"), "video-first")

VARIANTS: dict[str, Variant] = {
    item.name: item
    for item in (
        Variant("fastwam", (FIRST_FRAME,)),
        Variant("joint", (JOINT,)),
        Variant("idm", (IDM,), probabilities={COND_NOISE: 0.5}),
        # configs/model/fastwam_optional_idm.yaml conditions on the clean video always
        Variant("optional-idm", (IDM, FIRST_FRAME), probabilities={COND_NOISE: 0.0, MODE_SHARE: 0.5}),
        Variant("no-video", (FIRST_FRAME,), video_loss=False),
    )
}
"""Every variant by its name."""


def register(variant: Variant) -> None:
    """Add a variant to `VARIANTS`. ValueError for a name that is taken by another one."""
    if VARIANTS.setdefault(variant.name, variant) != variant:
        raise ValueError(f"there is a variant {variant.name!r} already; choose another name")


def register_plugins() -> None:
    """Add the variants of FWDATA_PLUGINS and of installed packages, as importing this module does.

    Raises UsageError for one that cannot be imported or is not a Variant of a free name.
    """
    for name in plugins.VARIANTS.names():
        found = plugins.VARIANTS.load(name)
        try:
            if not isinstance(found, Variant):
                raise ValueError(f"expected a fwtrain.variants.Variant, found {type(found).__name__}")
            register(found)
        except ValueError as error:
            raise UsageError(f"variant {name!r} of group {plugins.VARIANTS.group}: {error}") from None


@dataclass(frozen=True)
class Frames:
    """How many latent frames of each video group a pass holds, in model order."""

    future: int
    """Latent frames after the first that are predicted."""
    first: int = 1
    """Clean first frames."""
    copy: int = 0
    """Frames of the conditioning copy; 0: none."""

    @property
    def total(self) -> int:
        return self.future + self.first + self.copy

    def span(self, groups: tuple[Group, ...]) -> tuple[int, int]:
        """(start, stop) in frames of the given groups; ValueError if they are not contiguous in model order."""
        counts = [(name, getattr(self, name)) for name in VIDEO_ORDER]
        inside = [name in groups for name, count in counts if count]
        start = next((i for i, hit in enumerate(inside) if hit), len(inside))
        stop = len(inside) - next((i for i, hit in enumerate(reversed(inside)) if hit), len(inside))
        if not all(inside[start:stop]):
            raise ValueError(f"groups {groups} are not contiguous in the order {VIDEO_ORDER}")
        sizes = [count for _, count in counts if count]
        return sum(sizes[:start]), sum(sizes[: max(stop, start)])


@dataclass(frozen=True)
class Call:
    """One dense attention call: query frames [q0, q1) see key frames [k0, k1)."""

    q0: int
    """First query frame."""
    q1: int
    """End of the query frames, exclusive."""
    k0: int
    """First key frame."""
    k1: int
    """End of the key frames, exclusive."""


@lru_cache(maxsize=256)
def video_calls(frames: Frames, keep: int) -> tuple[Call, ...]:
    """The attention calls of the first `keep` frames of a video pass; they tile [0, keep) in order."""
    calls = []
    for group in VIDEO_ORDER:
        start, stop = frames.span((group,))
        stop = min(stop, keep)
        if start < stop:
            calls.append(Call(start, stop, *frames.span(VIDEO_SEES[group])))
    return tuple(calls)


@dataclass(frozen=True)
class _Segment:
    group: Group
    size: int
    stream: int


def _layout(variant: Variant, phase: Phase, frames: int, tokens: int, actions: int) -> list[_Segment]:
    """Token segments in the official order [noisy video, (conditioning video), action]."""
    later = (frames - 1) * tokens
    segments = [_Segment("first", tokens, 0), _Segment("future", later, 0)]
    copied = variant.copy and phase == "train"
    if copied:
        segments += [_Segment("first", tokens, 1), _Segment("copy", later, 1)]
    if phase != "video":
        segments.append(_Segment("action", actions, int(copied)))
    return segments


def allowed(
    variant: str, phase: Phase, frames: int, tokens: int, actions: int, mode: str | None = None
) -> npt.NDArray[np.bool_]:
    """bool [S, S], True where a query row may attend to a key column, in the official token order.

    frames: latent frames; tokens: tokens per frame; actions: action tokens. Phase train of a variant with a copy has
    the order [noisy video, conditioning video, action], every other one [video, action], and phase video only [video].
    mode: of a variant with several, None for the first. ValueError for one it does not have.
    """
    rules = VARIANTS[variant]
    chosen = rules.mode(mode)
    seen = chosen.sees if phase == "train" else chosen.sees_sampling
    sees: dict[Group, tuple[Group, ...]] = {**VIDEO_SEES, "action": (*seen, "action")}
    segments = _layout(rules, phase, frames, tokens, actions)

    def visible(query: _Segment, key: _Segment) -> bool:
        return key.group in sees[query.group] and (key.group != "first" or key.stream == query.stream)

    rows = [
        np.concatenate([np.full((q.size, k.size), visible(q, k)) for k in segments], axis=1) for q in segments if q.size
    ]
    return np.concatenate(rows)


register_plugins()
