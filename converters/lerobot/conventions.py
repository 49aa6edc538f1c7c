"""What the named LeRobot layouts claim about their numbers; a plain mapping claims its rate alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from converters.lerobot.column_names import kind_of, side_of, words_of
from converters.lerobot.grippers import SIGNS, GripperRules
from converters.lerobot.info import Info
from converters.lerobot.mapping import Fit
from converters.lerobot.options import LerobotOptions
from converters.shared import conventions as claims
from fwdata.api import ArmClaim, Conventions, GripperScale, Json, RateClaim
from fwdata.manifest import Manifest


def conventions(
    manifest: Manifest, options: LerobotOptions, info: Info, mapping: Fit, rules: GripperRules
) -> Conventions:
    """The claims of one episode, by the manifest that was chosen or named."""
    names = mapping.state_names, mapping.action_names
    scale: GripperScale | None = None
    if rules.top is not None:
        scale = "unit" if rules.unit or rules.top == 1 else "percent"
    found = _layout(manifest, names, scale)
    overruled = info.fps if options.rate is not None else None  # the user knows the label and says that it is wrong
    labels = tuple(rate for rate in (manifest.fps.nominal, *options.fps_labels, overruled) if rate)
    agree = agreeing(manifest, scale, rules.sign, mapping.cameras, mapping.state[0].key, _wrists(found))
    return replace(found, rate=RateClaim(manifest.fps.hz, info.fps, labels), options=agree | _rate(info.fps))


def _rate(label: float | None) -> dict[str, str]:
    return {"row_rate": f"--rate {label:g}"} if label else {}


def agreeing(
    manifest: Manifest,
    scale: GripperScale | None,
    sign: str | None,
    keys: Mapping[str, str],
    state: str,
    wrists: Sequence[str],
) -> dict[str, str]:
    """`Conventions.options`: what would agree with the opposite of each decision.

    scale: of the grippers as recorded or stored; sign: rule of the gripper command, see `GripperRules`. keys: camera ->
    feature; state: the feature that the state begins with. wrists: cameras on the left and on the right arm, if known.
    """
    found = {"colour_order": "--colour swapped"}
    if scale is not None:
        found |= claims.scale_option(scale)
    if sign is not None:
        found["gripper_polarity"] = f"--gripper-action {'reversed' if sign == 'signed' else 'signed'}"
    if _layout(manifest, ((), ()), None).layout:  # columns as the dataset itself names them, whatever they mean
        found["action_meaning"] = f"--state {state}"
    pairs = {"mounts_exchanged": ("image", "wrist_image"), "wrists_exchanged": wrists}
    for detector, pair in pairs.items():
        if len(pair) == len(claims.SIDES) and set(pair) <= keys.keys():
            swapped = {**keys, pair[0]: keys[pair[1]], pair[1]: keys[pair[0]]}
            listed = ", ".join(f"{name}: {key}" for name, key in swapped.items())
            found[detector] = f"--set 'cameras={{{listed}}}'"
    return found


def _wrists(found: Conventions) -> tuple[str, ...]:
    """Cameras on arms, left before right."""
    return tuple(arm.camera for arm in found.arms if arm.camera is not None)


def stored_conventions(
    manifest: Manifest, names: tuple[tuple[str, ...], tuple[str, ...]], metadata: Mapping[str, Json]
) -> Conventions:
    """See `fwdata.api.StoredConventions`."""
    told, label = metadata.get("gripper_range"), metadata.get("fps_label")
    scale: GripperScale | None = None if told is None else "unit" if told == [0, 1] else "percent"
    given = manifest.options.get("fps_labels")
    known = given if isinstance(given, list | tuple) else ()
    stated = float(label) if isinstance(label, int | float) else None
    overruled = stated if manifest.options.get("rate") is not None else None
    labels = tuple(float(rate) for rate in (manifest.fps.nominal, *known, overruled) if rate)
    rate = RateClaim(manifest.fps.hz, stated, labels)
    keys, columns = metadata.get("camera_keys"), metadata.get("state_columns")
    feature = str(columns[0]).partition("[")[0] if isinstance(columns, list) and columns else "observation.state"
    recorded = metadata.get("gripper_action_recorded")
    sign = next((rule for rule, words in SIGNS.items() if words == recorded), None)
    cameras = {name: str(key) for name, key in keys.items()} if isinstance(keys, dict) else {}
    found = _layout(manifest, names, scale)
    agree = agreeing(manifest, scale, sign, cameras, feature, _wrists(found)) | _rate(rate.label)
    return replace(found, rate=rate, options=agree)


def _layout(
    manifest: Manifest, names: tuple[tuple[str, ...], tuple[str, ...]], scale: GripperScale | None
) -> Conventions:
    if manifest.name == "lerobot-libero":
        return claims.libero({"fixed": "image", "wrist": "wrist_image"})
    if manifest.name == "lerobot-robotwin":
        found = claims.two_arms("robotwin", "next_state", names, "unit", ("left_camera", "right_camera"))
        return replace(found, simulated=True)
    if manifest.name in ("lerobot-r1lite", "lerobot-robocoin"):
        return claims.two_arms("r1lite", "absolute", names, scale, ("left_wrist_rgb", "right_wrist_rgb"))
    return Conventions(
        grippers=claims.named_grippers(*names),
        arms=_named_arms(names[0], manifest.cameras),
        colour=claims.UNSHOWN if manifest.cameras else None,
    )


def _named_arms(state_names: Sequence[str], cameras: Sequence[str]) -> tuple[ArmClaim, ...]:
    """Both arms of a robot whose joints and wrist cameras have names with a side; () where one of them has not."""
    found = []
    for side in claims.SIDES:
        joints = [i for i, name in enumerate(state_names) if side_of(name) == side and kind_of(name) == "joint"]
        wrists = [name for name in cameras if side_of(name) == side and {"wrist", "hand"} & set(words_of(name))]
        if len(joints) < MIN_JOINTS or len(wrists) != 1:
            return ()
        found.append(ArmClaim(side, tuple(joints), wrists[0]))
    return tuple(found)


MIN_JOINTS = 3
"""Joints by which an arm is known."""
