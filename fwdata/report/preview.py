"""`fwdata preview`: a page to look at a few episodes, their images, states and actions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import UsageError
from fwdata.evidence import sentences
from fwdata.evidence.records import DatasetVerdict
from fwdata.images.stitch import tiles
from fwdata.report import Band, Panel, Report, Tile, contact_sheet
from fwdata.report.films import cursor_film, film_rows
from fwdata.report.inspect_store import warning_kinds
from fwdata.report.place import refuse_foreign
from fwdata.store.episode import StoredEpisode
from fwdata.store.evidence import read_evidence, read_part_evidence
from fwdata.store.files import refuse_nested
from fwdata.store.reader import Store

SHEET_FRAMES = 8
LISTED = 200
"""Quarantined recordings shown; the page says how many more there are."""
LONG = 160
"""A decision with a longer text is folded away."""


type Extra = Callable[[Report, StoredEpisode], None]
"""Adds to the page what else is known of an episode, below its facts."""


def write_preview(
    store: Store, out: Path, episodes: int | Sequence[int], extras: Sequence[Extra] = (), *, films: bool = False
) -> Path:
    """Write `index.html` and one contact sheet per episode to `out`; returns the page's path.

    episodes: how many to show, taken in turn from every task and spread over it, or their indices. extras: add to each
    episode. films: with a film of each, at most 48 frames with a cursor in the state. Reads 8 frames per camera and the
    rows of the chosen episodes. Same store, same bytes. Raises UsageError when `episodes` is below 1, the store has no
    such index, or `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the preview")
    refuse_nested(out / "index.html")
    refuse_foreign(out / "index.html")
    chosen = choose_episodes(store, episodes)
    report = Report(f"Preview of {Path(store.location).name or store.source}")
    _about_store(report, store, len(chosen))
    for episode in chosen:
        _about_episode(report, store, episode, extras)
        if films:
            report.images([film_of(store, episode)])
    _tasks(report, store)
    _evidence(report, store)
    add_decisions(report, "Conventions decided", {**store.metadata["decisions"], "units": store.manifest.units})
    return report.write(out / "index.html")


def film_of(store: Store, episode: StoredEpisode) -> tuple[bytes, str]:
    """The stitched frames with the course of the state below them, as long as the episode took, and a caption."""
    rows = film_rows(episode.num_frames)
    fps = min(50.0, max(1.0, store.fps * len(rows) / episode.num_frames))
    film = cursor_film(episode.stitched(rows), rows, episode.state(), fps)
    return film, f"{episode.id}: {episode.instruction}"


def choose_episodes(store: Store, wanted: int | Sequence[int]) -> list[StoredEpisode]:
    """The episodes of these indices, or at most `wanted`: as many of each task as of the others where there are enough,
    spread over each task."""
    if not isinstance(wanted, int):
        unknown = [index for index in wanted if not 0 <= index < len(store.episodes)]
        if unknown:
            raise UsageError(f"{store.location} has episodes 0 to {len(store.episodes) - 1}, found {unknown[0]}")
        return [store.episodes[index] for index in dict.fromkeys(wanted)]
    if wanted < 1:
        raise UsageError(f"a preview shows at least 1 episode, {wanted} asked for")
    tasks: dict[str, list[int]] = {}
    for episode in store.episodes:
        tasks.setdefault(episode.task, []).append(episode.index)
    quota = dict.fromkeys(tasks, 0)
    left = min(wanted, len(store.episodes))
    while left:
        for task, members in tasks.items():
            if left and quota[task] < len(members):
                quota[task] += 1
                left -= 1
    return [
        store.episodes[members[int(position)]]
        for task, members in tasks.items()
        for position in np.linspace(0, len(members) - 1, quota[task]).round()
    ]


def _about_store(report: Report, store: Store, shown: int) -> None:
    total, val = len(store.episodes), len(store.val_indices)
    spec = store.manifest.stitch
    nominal = store.metadata.get("fps_nominal")
    report.facts(
        {
            "source": store.source,
            "episodes": f"{total:,} ({total - val:,} train, {val:,} val), {shown} shown here",
            "frames": store.num_frames,
            "rate": f"{store.fps:.4g} Hz" + (f" (labelled {nominal:g})" if nominal else ""),
            "cameras": list(store.cameras),
            "stitched image": f"{spec.layout}, {spec.size[1]} x {spec.size[0]} pixels (width x height)",
            "state, action": f"{len(store.state_names)} and {len(store.action_names)} dimensions",
            "complete": store.complete,
            "written by": store.metadata.get("writer"),
        }
    )
    _quarantined(report, store)
    add_warnings(report, store)


def _tasks(report: Report, store: Store) -> None:
    report.heading("Tasks")
    counts = Counter(e.task for e in store.episodes)
    frames, val_counts = Counter[str](), Counter[str]()
    for episode in store.episodes:
        frames[episode.task] += episode.num_frames
        val_counts[episode.task] += episode.split == "val"
    report.table(
        ("task", "episodes", "of them val", "frames"),
        [(task, n, val_counts[task], frames[task]) for task, n in counts.items()],
    )


def add_warnings(report: Report, store: Store, level: int = 2) -> None:
    """Warnings of the store and its recordings, and recordings left out, below headings of `level`."""
    kinds = warning_kinds(store)
    if kinds:
        report.heading("Warnings by kind, the gravest first", level)
        rows = [(k.text, k.count if k.sources else None, ", ".join(k.examples)) for k in kinds]
        report.table(("warning", "episodes", "for example"), rows)
    if store.plan.left_out:
        report.heading("Recordings left out", level)
        report.table(
            ("reason", "recordings", "for example"),
            [(left.reason, left.count, ", ".join(left.examples)) for left in store.plan.left_out],
        )


def _evidence(report: Report, store: Store) -> None:
    """What the detectors say about the conventions of the data set."""
    record = read_evidence(store.files)
    report.heading("Conventions measured on the data")
    if record is None:
        report.text("No convention was measured; fwdata doctor measures them.")
        return
    add_conventions(report, record.verdicts())
    for name, reason in record.accepted().items():
        report.text(f"Accepted contradiction of {name}: {reason}")


def add_conventions(report: Report, verdicts: Sequence[DatasetVerdict]) -> None:
    """Tables of what was measured of every convention: what was not confirmed first, the others folded away."""
    header, order = ("convention", "decided", "evidence"), ("contradicted", "mixed", "no evidence")
    found = [verdict for outcome in order for verdict in verdicts if verdict.verdict == outcome]
    good = [sentences.cells(verdict) for verdict in verdicts if verdict.verdict == "confirmed"]
    if found:
        report.table(header, [sentences.cells(verdict) for verdict in found])
    if good:
        with report.folded(f"{len(good)} confirmed"):
            report.table(header, good)


def _quarantined(report: Report, store: Store) -> None:
    found = store.quarantined
    if not found:
        report.text("No recording was quarantined.")
        return
    report.heading(f"{len(found):,} quarantined recording{'s' if len(found) > 1 else ''}")
    report.table(("recording", "reason"), [(item["source"], item["reason"]) for item in found[:LISTED]])
    if len(found) > LISTED:
        report.text(f"{len(found) - LISTED:,} more are listed by fwdata inspect.")


def _about_episode(report: Report, store: Store, episode: StoredEpisode, extras: Sequence[Extra]) -> None:
    report.heading(f"{episode.index} · {episode.id}")
    valid, times = episode.valid(), episode.timestamps()
    report.facts(
        {
            "task": episode.task,
            "instruction": episode.instruction,
            "split": episode.split,
            "length": f"{episode.num_frames:,} frames, {times[-1]:.2f} s",
            "marked not valid": f"{int((~valid).sum()):,} frames" if not valid.all() else None,
            "recording": episode.source,
        }
    )
    for extra in extras:
        extra(report, episode)
    sheet = _sheet(store, episode, times, valid)
    caption = f"Stitched frames of episode {episode.index}, {episode.id}"
    report.images([(sheet, caption)], files=[f"episode-{episode.index:05d}.png"])
    _rows(report, store, episode, times, valid)
    with report.folded(f"{len(episode.instructions)} training instructions"):
        report.table(("instruction",), [(text,) for text in episode.instructions])
    measured = {m.episode: m.verdicts for m in read_part_evidence(store.files, episode.part.name)}
    for verdict in measured.get(episode.id, ()):
        if verdict.verdict == "contradicted":
            report.text(f"Contradicted: {sentences.episode_line(verdict)}")
    for warning in episode.details.metadata.warnings:
        report.text(f"Warning: {warning}")
    with report.folded("Decisions for this episode"):
        add_decisions(report, "", episode.metadata)


def _sheet(store: Store, episode: StoredEpisode, times: NDArray[np.float64], valid: NDArray[np.bool_]) -> bytes:
    """PNG of the frames nearest to 8 evenly spaced times (fewer in a shorter episode)."""
    wanted = np.linspace(times[0], times[-1], SHEET_FRAMES)
    indices = np.unique([int(np.abs(times - t).argmin()) for t in wanted])
    labels = [f"{times[i]:.2f} s · frame {i}" + ("" if valid[i] else " · not valid") for i in indices]
    spec = store.manifest.stitch
    places = [Tile(name, *place) for name, place in zip(spec.cameras, tiles(spec), strict=True)]
    return contact_sheet(episode.stitched(indices), labels, places, [not valid[i] for i in indices])


def _rows(
    report: Report, store: Store, episode: StoredEpisode, times: NDArray[np.float64], valid: NDArray[np.bool_]
) -> None:
    """State and action over time: in common panels when their dimensions have the same names, else apart."""
    state, action = episode.state(), episode.action()
    bands = _bands(times, ~valid)
    if store.state_names == store.action_names:
        panels = [
            Panel(name, {"state": (times, state[:, i]), "action": (times, action[:, i])}, bands)
            for i, name in enumerate(store.state_names)
        ]
        report.multiples("State and action", panels, "seconds")
        return
    for title, names, values in (("state", store.state_names, state), ("action", store.action_names, action)):
        panels = [Panel(name, {title: (times, values[:, i])}, bands) for i, name in enumerate(names)]
        report.multiples(title.capitalize(), panels, "seconds")


def _bands(times: NDArray[np.float64], marked: NDArray[np.bool_]) -> list[Band]:
    """Stretches of time whose frames are marked, each reaching to the next frame."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]])))
    last = len(times) - 1
    return [
        Band(float(times[start]), float(times[min(stop, last)]))
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    ]


def add_decisions(report: Report, title: str, decisions: Mapping[str, Any]) -> None:
    """Decisions as facts, nested ones with dotted names; the long ones folded away."""
    if title:
        report.heading(title)
    flat = _flatten("", decisions)
    long = {key: value for key, value in flat.items() if isinstance(value, list) and len(str(value)) > LONG}
    report.facts({key: value for key, value in flat.items() if key not in long})
    for key, value in long.items():
        with report.folded(f"{key} ({len(value)})"):
            report.table((key,), [(item,) for item in value])


def _flatten(prefix: str, value: Mapping[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= _flatten(f"{prefix}{key}.", item)
        else:
            flat[f"{prefix}{key}"] = item
    return flat
