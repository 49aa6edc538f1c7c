"""Which windows of a store have video loss, and how far they reach: python inspect_windows.py STORE."""

from __future__ import annotations

import sys

import fwdata


def main(location: str) -> None:
    """Print one line per task."""
    store = fwdata.open(location)
    cache = store.latents()
    seconds = (cache.window.num_frames - 1) / store.fps
    print(f"{store.location}: windows of {seconds:.2f} s, future latents every {cache.stride} frames")
    counts: dict[str, tuple[int, int]] = {}
    for episode in store.episodes:
        frames, windows = counts.get(episode.task, (0, 0))
        counts[episode.task] = frames + episode.num_frames, windows + len(cache.starts(episode))
    for task, (frames, windows) in counts.items():
        print(f"{task}: {frames} windows, {windows / frames:.0%} with video loss")


if __name__ == "__main__":
    main(sys.argv[1])
