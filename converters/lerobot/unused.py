"""What a dataset holds and a conversion does not use: other features, and marks of failed episodes."""

from __future__ import annotations

from converters.lerobot.info import NUMBER_TYPES, Feature, Info
from converters.lerobot.mapping import Fit
from converters.lerobot.meta import Dataset
from fwdata.wording import counted, verb

LISTED = 8
"""Features and episodes that a sentence names; the others are counted."""

_BOOKKEEPING = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index"})
_LABELS = frozenset({"coarse_task_index", "quality_index"})


def notes(dataset: Dataset, mapping: Fit) -> list[str]:
    """A sentence for features that are not converted, and one for episodes that the metadata mark as failed."""
    return [*_features(dataset.info, mapping), *_failed(dataset)]


def _features(info: Info, mapping: Fit) -> list[str]:
    """Such as a gripper of its own, efforts or subtasks; rewards and ends of episodes are of no use here."""
    used = {part.key for part in (*mapping.state, *mapping.action)} | _BOOKKEEPING | _LABELS
    vectors = set(info.vectors())
    found = [
        feature
        for feature in info.features.values()
        if feature.dtype not in ("video", "image") and feature.key not in used and not feature.key.startswith("next.")
    ]
    if not found:
        return []
    listed = _some([f"{feature.key} ({_content(feature)})" for feature in found])
    joined = [feature.key in vectors for feature in found]
    those = "several" if all(joined) else "those that are numbers"
    hint = f"; options state and action join {those}" if any(joined) else ""
    return [f"features that are not converted: {listed}{hint}"]


def _content(feature: Feature) -> str:
    """How many numbers a feature has, its shape where they lie in several lines, or its type where it has none."""
    if feature.dtype not in NUMBER_TYPES or not feature.shape:
        return feature.dtype
    lines = [n for n in feature.shape if n != 1]
    return str(feature.size) if len(lines) <= 1 else "x".join(map(str, feature.shape))


def _failed(dataset: Dataset) -> list[str]:
    discarded = dict.fromkeys(dataset.info.discarded, "discarded_episode_indices lists it")
    marks = {index: entry.failed or discarded.get(index, "") for index, entry in dataset.episodes.items()}
    marked = {index: said for index, said in marks.items() if said}
    if not marked:
        return []
    index, said = next(iter(marked.items()))
    return [
        f"{len(marked)} of {counted(len(dataset.episodes), 'episode')} {verb(len(marked), 'is', 'are')} "
        f"marked as failed or not valid and {verb(len(marked), 'is', 'are')} converted "
        f"(episodes {_some(list(map(str, marked)))}; of episode {index} the metadata say: {said}); leave one out with "
        f"--exclude '*episode_{index:06d}'"
    ]


def _some(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
