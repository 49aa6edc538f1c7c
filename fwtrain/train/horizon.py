"""How far a window reaches in seconds, against the windows that Fast-WAM was published with."""

from __future__ import annotations

from fwdata.window import VAE_TEMPORAL_STRIDE, Window

PUBLISHED = {"LIBERO": 32 / 20, "RoboTwin": 32 * 0.06}
"""Seconds from the first to the last frame of the published windows: 33 frames at 20 Hz and at 1/0.06 s."""
TOLERANCE = 0.25
"""A horizon within this share of the published range is not worth a warning (R1 Lite at 15 Hz: 2.13 s)."""


def horizon_warning(window: Window, fps: float, store: str = "STORE") -> str | None:
    """A sentence where the window spans less or more time than the published ones, with a window that fits; else None.

    The pretrained video expert and the number of actions per chunk know frames, not seconds: at another rate the same
    33 frames are another task. store: the word that names it in a command.
    """
    seconds = (window.num_frames - 1) / fps
    least, most = min(PUBLISHED.values()), max(PUBLISHED.values())
    if least * (1 - TOLERANCE) <= seconds <= most * (1 + TOLERANCE):
        return None
    stride = max(1, round(window.video_stride * (least + most) / 2 / seconds))
    frames = stride * VAE_TEMPORAL_STRIDE * (window.latent_frames - 1)
    return (
        f"{window.num_frames} frames at {fps:.4g} Hz span {seconds:.2f} s, Fast-WAM was published with "
        f"{least:.2g} s (LIBERO) and {most:.2g} s (RoboTwin); a window of {frames / fps:.2f} s: fwdata view {store} "
        f"--set window.num_frames={frames + 1} --set window.video_stride={stride} --set window.action_horizon={frames}"
        ", then encode the latents again"
    )
