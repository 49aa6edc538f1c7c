"""The page about a store: result first, then films, findings, numbers, decisions, caches and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fwdata.console import human_bytes, human_time
from fwdata.doctor.album import StoredAlbum
from fwdata.doctor.findings import Checkup
from fwdata.doctor.page import add_findings, result
from fwdata.evidence.records import DatasetVerdict
from fwdata.overview.rows import SAMPLED, ColumnSpread, Measured
from fwdata.report import Range, RangePanel, Report
from fwdata.report.inspect_store import StoreDescription, describe
from fwdata.report.place import page_place
from fwdata.report.preview import add_conventions, add_decisions, add_warnings, choose_episodes, film_of
from fwdata.store.files import LocalFiles
from fwdata.store.reader import Store
from fwdata.wording import counted, verb

FILMS = 4
"""Episodes that are shown as films, as many of each task."""
PAGE = "report.html"
"""Its name in a folder."""
LISTED = 20
"""Outliers, instructions and tasks shown; the others are counted or folded away."""


def write_overview(store: Store, checked: Checkup, measured: Measured, out: Path) -> Path:
    """Write one self-contained page to `out`, a file NAME.html or a folder; returns its path.

    Reads the frames of 4 episodes and the metadata. Same store, same bytes. UsageError where `out` is another file.
    """
    path = page_place(out, PAGE, "--out")
    found = describe(store)
    report = Report(f"{Path(store.location).name or store.source}: {len(store.episodes):,} episodes")
    _result(report, store, checked, measured, found)
    _films(report, store)
    report.heading("Doctor's findings")
    report.text(result(checked.counts()))
    add_findings(report, checked, StoredAlbum(store))
    _tasks(report, store)
    _lengths(report, store, measured)
    _values(report, "State", measured.state, measured)
    _values(report, "Action", measured.action, measured)
    _timing(report, store, measured)
    _instructions(report, store)
    _decisions(report, store, found)
    _caches(report, found)
    _storage(report, store)
    path.parent.mkdir(parents=True, exist_ok=True)
    return report.write(path)


def page_beside(store: Store) -> Path:
    """Where a store's page lies by default: NAME-report.html beside NAME.zarr; in this folder for a URL."""
    here = store.files.root if isinstance(store.files, LocalFiles) else Path(Path(store.location).name)
    here = here.resolve() if here.name in ("", "..") else here
    return here.with_name(f"{here.name.removesuffix('.zarr')}-report.html")


def _result(report: Report, store: Store, checked: Checkup, measured: Measured, found: StoreDescription) -> None:
    counts = checked.counts()
    worst = ", ".join(f"{number} {severity}" for severity, number in counts.items() if number) or "nothing found"
    size = found["bytes"]
    report.facts(
        {
            "ready to train": _ready(counts["stop"], found),
            "episodes": f"{len(store.episodes):,}, {len(store.val_indices):,} of them held out for validation",
            "frames": f"{store.num_frames:,}, {human_time(store.num_frames / store.fps)} at {store.fps:.4g} Hz",
            "doctor": worst,
            "source": store.source,
            "cameras": list(store.cameras),
            "state, action": f"{len(store.state_names)} and {len(store.action_names)} dimensions",
            "size": "unknown, read from a URL" if size is None else human_bytes(size),
        }
    )


def _ready(stops: int, found: StoreDescription) -> str:
    """What is missing before `fwtrain run`, in one sentence."""
    if not found["complete"]:
        return "no: the conversion is not finished"
    if stops:
        return f"no: the doctor has {stops} finding{'s' if stops > 1 else ''} that make training useless"
    whole = [cache for cache in found["latents"] if cache["complete"] and not cache["differs_from_view"]]
    lacking = [name for name, there in (("latents", whole), ("text", found["text"])) if not there]
    commands = {"latents": "fwdata encode-latents", "text": "fwdata encode-text"}
    return "yes" if not lacking else "after " + " and ".join(commands[name] for name in lacking)


def _films(report: Report, store: Store) -> None:
    report.heading("Episodes")
    report.text("Stitched frames, the state below them: the columns that move most, each in its own range.")
    report.images([film_of(store, episode) for episode in choose_episodes(store, FILMS)])


def _tasks(report: Report, store: Store) -> None:
    report.heading("Tasks")
    episodes, val, frames = Counter[str](), Counter[str](), Counter[str]()
    for episode in store.episodes:
        episodes[episode.task] += 1
        val[episode.task] += episode.split == "val"
        frames[episode.task] += episode.num_frames
    rows = [(task, n, val[task], frames[task]) for task, n in episodes.most_common()]
    _long_table(report, ("task", "episodes", "held out", "frames"), rows, "tasks")


def _long_table(report: Report, header: Sequence[str], rows: Sequence[Sequence[object]], what: str) -> None:
    """The first rows of a table, the others folded away."""
    report.table(header, rows[:LISTED])
    if len(rows) > LISTED:
        with report.folded(f"{len(rows) - LISTED:,} more {what}"):
            report.table(header, rows[LISTED:])


def _lengths(report: Report, store: Store, measured: Measured) -> None:
    report.heading("Lengths")
    lengths = measured.lengths
    low, median, high = np.quantile(lengths, (0.05, 0.5, 0.95))
    report.text(
        f"{lengths.min():,} to {lengths.max():,} frames ({lengths.min() / store.fps:.1f} to "
        f"{lengths.max() / store.fps:.1f} s), median {median:,.0f}, 90 % of them from {low:,.0f} to {high:,.0f}."
    )
    share = np.arange(1, len(lengths) + 1) / len(lengths)
    report.plot("Episodes not longer than", {"share": (np.sort(lengths), share)}, "frames", "share of episodes")
    if measured.odd_lengths:
        report.text(
            f"{counted(len(measured.odd_lengths), 'episode')} {verb(len(measured.odd_lengths), 'is', 'are')} much "
            "shorter or longer than most:"
        )
        _long_table(report, ("episode", "frames"), measured.odd_lengths, "episodes")


def _values(report: Report, title: str, columns: Sequence[ColumnSpread], measured: Measured) -> None:
    report.heading(title)
    if measured.episodes == SAMPLED:
        report.text(f"Of {SAMPLED:,} evenly spaced episodes.")
    rows: dict[str, Range | None] = {c.name: Range(c.median, c.low, c.high) for c in columns}
    report.ranges("Median, and the range of 98 % of all rows", [RangePanel(title, "robot units", rows)])
    header = ("column", "least", "1 %", "median", "99 %", "greatest", "far outlier in")
    with report.folded("Numbers"):
        report.table(
            header, [(c.name, c.least, c.low, c.median, c.high, c.greatest, c.outlier or None) for c in columns]
        )
    far = [c for c in columns if c.outlier]
    for column in far:
        report.text(
            f"{column.name} lies far outside its usual range in {column.outlier}: {column.least:.4g} to "
            f"{column.greatest:.4g}, usually {column.low:.4g} to {column.high:.4g}"
        )


def _timing(report: Report, store: Store, measured: Measured) -> None:
    report.heading("Timing")
    nominal = store.metadata.get("fps_nominal")
    report.facts(
        {
            "rate of the store": f"{store.fps:.4g} Hz" + (f" (labelled {nominal:g})" if nominal else ""),
            "rate by the time stamps": f"{measured.rate:.4g} Hz (median step), jitter {measured.jitter:.2g} ms",
            "episodes with gaps": len(measured.gaps),
        }
    )
    if measured.gaps:
        rows = [(name, f"{seconds:.3f}") for name, seconds in measured.gaps]
        _long_table(report, ("episode", "longest step, s"), rows, "episodes")


def _instructions(report: Report, store: Store) -> None:
    report.heading("Instructions")
    counts = Counter(episode.instruction for episode in store.episodes)
    every = len({text for episode in store.episodes for text in episode.instructions})
    report.text(f"{len(counts):,} canonical instructions, {every:,} texts in all.")
    _long_table(report, ("instruction", "episodes"), counts.most_common(), "instructions")


def _decisions(report: Report, store: Store, found: StoreDescription) -> None:
    report.heading("Decisions and their evidence")
    if found["evidence"]:
        add_conventions(report, [DatasetVerdict.from_json(item) for item in found["evidence"]])
    else:
        report.text("No convention was measured (fwdata convert measures them).")
    add_decisions(report, "", {**store.metadata["decisions"], "units": store.manifest.units})
    add_warnings(report, store, 3)
    if store.quarantined:
        report.heading("Quarantined recordings", 3)
        named = [(item["source"], item["reason"]) for item in store.quarantined]
        _long_table(report, ("recording", "reason"), named, "recordings")


def _caches(report: Report, found: StoreDescription) -> None:
    report.heading("Caches")
    rows: list[tuple[object, ...]] = []
    for cache in found["latents"]:
        states = ["complete" if cache["complete"] else "not finished", *cache["differs_from_view"]]
        share = cache["windows"] / max(found["frames"], 1)
        covers = f"{cache['windows']:,} windows with video loss, {share:.0%} of all (stride {cache['stride']})"
        rows.append((f"latents {cache['name']}", cache["vae"], covers, "; ".join(states)))
    for text in found["text"]:
        fits = "; ".join(text["differs_from_view"]) or "fits the view"
        rows.append((f"text {text['name']}", text["encoder"], f"{text['prompts']:,} prompts", fits))
    rows.append(("statistics", None, None, "saved" if found["stats"] else "computed when they are asked for"))
    report.table(("cache", "made with", "covers", "state"), rows)


def _storage(report: Report, store: Store) -> None:
    if not isinstance(store.files, LocalFiles):
        return
    report.heading("Storage")
    sizes = Counter[str]()
    for path in store.files.root.rglob("*"):
        if path.is_file():
            parts = path.relative_to(store.files.root).parts
            inside = parts[:1] + parts[2:4] if parts[0] == "parts" and len(parts) > 4 else parts[:2]
            sizes["/".join(inside[:-1] or parts[:1])] += path.stat().st_size
    total = sum(sizes.values())
    frames = max(store.num_frames, 1)
    rows = [(name, human_bytes(n), f"{n / total:.0%}", round(n / frames)) for name, n in sizes.most_common()]
    report.table(("in", "bytes", "share", "bytes a frame"), rows)
