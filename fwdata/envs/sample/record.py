"""Recordings of the sample world in the formats of real robots."""

from __future__ import annotations

from pathlib import Path

from fwdata.envs.sample.request import SampleReport
from fwdata.errors import UsageError

FORMATS = ("robotwin", "lerobot")
"""Formats that recordings of the world are written in; its robot is RoboTwin's in all of them."""


def write_sample(
    kind: str,
    out: Path,
    episodes: int,
    seed: int = 0,
    *,
    camera_size: tuple[int, int] = (48, 64),
    variant: str | None = None,
) -> SampleReport:
    """Write `episodes` expert recordings of the sample world to `out`, in the on-disk format of `kind`.

    camera_size: (height, width) of every camera. variant: which generation of the format ("classic" or "v1.0" for
    robotwin), the most common one by default. Same arguments give the same bytes; a rerun goes on where it stopped.

    Raises UsageError for an unknown kind or variant, a wrong number, or a folder that holds other recordings;
    FwdataError when the disk refuses a file. About 0.12 s of one core per episode at 64x48.
    """
    if kind not in FORMATS:
        raise UsageError(f"the sample world has no kind {kind!r}; available: {', '.join(FORMATS)}")
    if kind == "lerobot":
        if variant is not None:
            raise UsageError(f"lerobot has no variant {variant!r} here: version v2.1 is written")
        from fwdata.envs.sample.record_lerobot import write_lerobot

        return write_lerobot(out, episodes, seed, camera_size=camera_size)
    from fwdata.envs.sample.record_robotwin import write_robotwin

    return write_robotwin(out, episodes, seed, camera_size=camera_size, variant=variant or "classic")
