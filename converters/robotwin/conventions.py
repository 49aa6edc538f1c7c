"""What is decided about an episode: targets, grippers 0 .. 1, a wrist camera per arm, and what showed the colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from converters.shared import conventions as claims
from fwdata.api import ActionMeaning, ColourClaim, Conventions, Json, RateClaim
from fwdata.manifest import Manifest

NEXT_OR_SAME = ("exactly the next row's state", "exactly the state of the same row")
"""What recorded actions measure of which the next row's state can be made."""

type Names = tuple[tuple[str, ...], tuple[str, ...]]
"""Of the state and of the action columns."""


def conventions(manifest: Manifest, names: Names, label: float | None, about: Mapping[str, Json]) -> Conventions:
    """The claims of one episode. label: the rate that the recording states; about: its metadata."""
    fps, wrists = manifest.fps, ("left_camera", "right_camera")
    known = (fps.nominal,) if fps.nominal else ()
    recorded = manifest.options.get("actions", "next_state") == "recorded"
    meaning: ActionMeaning = "absolute" if recorded else "next_state"
    found = claims.two_arms("robotwin", meaning, names, "unit", claims.as_stitched(manifest, wrists))
    rate = RateClaim(fps.hz, label, known)
    options = agreeing(manifest, label, about)
    return replace(found, rate=rate, colour=_shown_colours(about), one_start=True, simulated=True, options=options)


def agreeing(manifest: Manifest, label: float | None, about: Mapping[str, Json]) -> dict[str, str]:
    """`Conventions.options`: what would agree with the opposite of each decision. about: metadata of the episode."""
    recorded = manifest.options.get("actions", "next_state") == "recorded"
    found = claims.rate_option(label) | claims.swapped_wrists(manifest, ("left_camera", "right_camera"))
    if recorded:  # nothing else that targets may be is read as the next state
        found |= {f"action_meaning -> {what}": "--actions next_state" for what in NEXT_OR_SAME}
    else:
        found["action_meaning"] = "--actions recorded"
    orders = about.get("colour_order")
    stored = set(orders.values()) if isinstance(orders, dict) else set()
    found["colour_order"] = f"--colour {'rgb' if stored == {'swapped'} else 'swapped'}"
    return found


def stored_conventions(manifest: Manifest, names: Names, metadata: Mapping[str, Json]) -> Conventions:
    """See `fwdata.api.StoredConventions`."""
    label = metadata.get("fps_label")
    return conventions(manifest, names, float(label) if isinstance(label, int | float) else None, metadata)


def _shown_colours(about: Mapping[str, Json]) -> ColourClaim:
    """What showed the order of red and blue."""
    check, orders = about.get("colour_check"), about.get("colour_order")
    if isinstance(check, dict) and check["verdict"] == "agrees":
        return ColourClaim("the collector's video")
    if isinstance(orders, dict) and set(orders.values()) <= {"marked", "rgb"}:
        return ColourClaim("marker XPL-RGB1")
    return ColourClaim(reason="no video" if check is None else "the video does not tell")
