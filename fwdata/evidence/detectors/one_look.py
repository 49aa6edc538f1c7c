"""Episodes whose images are like the others' once mirrored, turned, or red and blue or cameras are exchanged (g2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.exchanged_views import FEWEST as FEWEST_OF_BOTH
from fwdata.evidence.exchanged_views import exchanged_views
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, LookTrace
from fwdata.evidence.signals import Floats, medians, middle, spread_places
from fwdata.evidence.turned_groups import turned_groups

NEIGHBOURS, FEWEST = 5, 5
"""Other episodes that one is compared with, the nearest, and episodes of a camera that make the comparison."""

COLOUR, CONTRAST = 0.8, 0.006
"""Correlation of the red against blue of two episodes' tiles from which they are of one scene, and its spread over the
tiles (as a share of brightness) below which there is too little of it to tell. Episodes of the sample world, each in
colours of its own, reach -0.69; those of one true room 0.97 to 1."""

SAME_SCENE, OPPOSITE = 0.95, 0.9
"""The same of green and of red + blue, and of red against blue, by which two of fewer than 5 episodes tell by
themselves that they are exchanged: none of 2,400 pairs of clean episodes of one scene goes below -0.86."""

OBJECT = 3.0
"""Times the median over the tiles that one may be redder or bluer than the scene: a red object in the place of a blue
one is no exchange. Where most tiles are as good as grey, those that are not are the scene."""

TURNED, MARGIN = 0.7, 0.3
"""The same of whole patterns once one is mirrored or turned, and by how much that is better than as it is."""

AGREE, MOST = 0.6, 1 / 3
"""Share of the neighbours that must agree with theirs, and of episodes that may be exceptions."""

SCENE, GROUP, CLEAR = 0.9, 3, 0.8
"""Correlation of green and of red + blue from which two episodes show one scene, episodes of each of two groups, and
the share of the scene's episodes that must be in one of them."""

EXCHANGED = "red and blue exchanged"

OTHERS = 512
"""Episodes that every one is compared with, evenly spread."""

type Places = NDArray[np.int64]
type Change = Callable[[Floats], tuple[Floats, ...]]
type _Look = tuple[str, NDArray[np.uint8]]

QUARTER, NEARER = "turned by 90 degrees", 0.85
"""What may be undone in two ways, and how near a group must then come to the others: of 1,600 made sets of things on a
bare table 1 more is reported so than without it, with 0.7 it were 6."""

CHANGES: tuple[tuple[str, Change], ...] = (
    ("mirrored", lambda tiles: (tiles[:, :, ::-1],)),
    ("upside down", lambda tiles: (tiles[:, ::-1],)),
    ("turned by 180 degrees", lambda tiles: (tiles[:, ::-1, ::-1],)),
    (QUARTER, lambda tiles: (np.rot90(tiles, 1, (1, 2)), np.rot90(tiles, -1, (1, 2)))),
)
"""Name -> the ways in which it is undone; of several that which fits best: what is turned left against the others,
these are turned right against."""

ALIKE = "the scene as in other episodes"
GROUPS = "between two groups, of which nothing tells the right one"

MEANT = "mirrored"
"""What is also done on purpose, to have more of a set."""


class OddLook(NamedTuple):
    """An episode that looks like others only once it is changed."""

    place: int
    """Which of the looks it is."""
    change: str
    """What was done to it, in words."""
    as_is: float
    """Its correlation with the nearest others, median."""
    changed: float
    """The same once that is undone."""
    halves: bool = False
    """Whether it is of the smaller of two groups, of which nothing tells the right one."""


class OneLook(Detector):
    """g2: the first images of a camera are as near to those of other episodes as they can be. Its traces are h7's."""

    name, code, question, action = "one_look", "g2", "camera as in other episodes", "warn"
    advice = "record the episodes again, or leave them out (--exclude)"
    word = "expected"
    needs_images = light = True

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict per camera of at least 5 episodes; of fewer, where red and blue of two are each other's."""
        found: dict[str, list[_Look]] = {}
        for measurement in episodes:
            for trace in measurement.traces:
                if isinstance(trace, LookTrace):
                    found.setdefault(trace.camera, []).append((measurement.episode, trace.tiles))
        alone = ((self._one if len(looks) >= FEWEST else self._few)(camera, looks) for camera, looks in found.items())
        both = (self._both(*pair, found) for pair in combinations(found, 2))
        return tuple(verdict for verdict in (*alone, *both) if verdict is not None)

    def _few(self, camera: str, looks: Sequence[_Look]) -> DatasetVerdict | None:
        """A verdict where two of few episodes show one scene with red and blue exchanged; None where none do."""
        tiles = np.stack([each for _, each in looks]).astype(np.float64)
        scene, red, told = _colours(tiles, np.arange(len(tiles)))
        odd = np.triu((scene >= SAME_SCENE) & (red <= -OPPOSITE) & told[:, None] & told)
        if not odd.any():
            return None
        one, other = np.argwhere(odd)[0].tolist()
        names = looks[one][0], looks[other][0]
        return DatasetVerdict(
            self.name,
            "contradicted",
            camera,
            value=round(float(red[one, other]), 4),
            episodes_for=len(looks) - 1,
            against=1,
            action="warn",
            decided=ALIKE,
            measured=f"{EXCHANGED} between episodes, of which nothing tells the right one",
            detail=f"{names[0]} correlates by {red[one, other]:+.2f} with {names[1]}, by {scene[one, other]:+.2f} "
            "in green and red + blue",
            episodes=names[1:],
        )

    def _both(self, one: str, other: str, looks: Mapping[str, Sequence[_Look]]) -> DatasetVerdict | None:
        """A verdict where two cameras are exchanged in some episodes; None where they are not."""
        tiles = [dict(looks[camera]) for camera in (one, other)]
        names = [name for name in tiles[0] if name in tiles[1]]
        if len(names) < FEWEST_OF_BOTH:
            return None
        found = exchanged_views(*(_unit(np.stack([each[name] for name in names]).astype(np.float64)) for each in tiles))
        if found is None:
            return None
        odd = [names[place] for place in found.places]
        told = GROUPS if found.halves else "against the others"
        return DatasetVerdict(
            self.name,
            "contradicted",
            f"{one} and {other}",
            value=float(len(odd)),
            episodes_for=len(names) - len(odd),
            against=len(odd),
            action="warn",
            decided="each camera shows what it shows in other episodes",
            measured=f"the cameras exchanged {told}",
            detail=f"{odd[0]} correlates by {found.as_is:+.2f} with the others, by {found.changed:+.2f} exchanged",
            episodes=tuple(odd[:MAX_LISTED]),
        )

    def _one(self, camera: str, looks: Sequence[_Look]) -> DatasetVerdict:
        tiles = np.stack([each for _, each in looks]).astype(np.float64)
        colours = _colours(tiles, np.arange(len(tiles))) if len(tiles) <= OTHERS else None
        groups = two_groups(tiles, colours)
        if min(map(len, groups)) > MOST * sum(map(len, groups)):
            few, many = ([looks[place][0] for place in group] for group in sorted(groups, key=len))
            return DatasetVerdict(
                self.name,
                "contradicted",
                camera,
                value=float(len(few)),
                episodes_for=len(looks) - len(few),
                against=len(few),
                action="warn",
                decided=ALIKE,
                measured=f"{EXCHANGED} {GROUPS}",
                detail=f"{', '.join(few[:2])}, .. against {', '.join(many[:2])}, ..",
                episodes=tuple(few[:MAX_LISTED]),
            )
        odd = odd_looks(tiles, colours)
        names = [looks[each.place][0] for each in odd]
        changes = list(dict.fromkeys(each.change for each in odd))
        detail = "; ".join(
            f"{name} correlates by {each.as_is:+.2f} with the others, by {each.changed:+.2f} once that is undone"
            for name, each in list(zip(names, odd, strict=True))[:2]
        )
        return DatasetVerdict(
            self.name,
            "contradicted" if odd else "confirmed",
            camera,
            value=float(len(odd)),
            episodes_for=len(looks) - len(odd),
            against=len(odd),
            action="warn" if odd else "note",
            decided=ALIKE,
            measured=f"{' or '.join(changes)} {GROUPS if odd[0].halves else 'against the others'}" if odd else ALIKE,
            detail=detail,
            episodes=tuple(names[:MAX_LISTED]),
        )


def odd_looks(tiles: Floats, colours: _Colours | None = None) -> list[OddLook]:
    """The exceptions among first images [n, 8, 8, 3]; not those exchanged or mirrored where they are many.

    Cost: 4 us per episode and other.
    colours: of all of them, where that is known.
    """
    best: dict[int, OddLook] = {}
    others = spread_places(len(tiles), OTHERS)
    for each in (*_exchanged(colours or _colours(tiles, others), others), *_turned(tiles, others)):
        known = best.get(each.place)
        best[each.place] = each if known is None or each.changed > known.changed else known
    turned = {place for place, each in best.items() if each.change not in (MEANT, EXCHANGED)}
    kept = best if len(best) - len(turned) <= MOST * len(tiles) else turned
    return [best[place] for place in sorted(kept)]


def two_groups(tiles: Floats, colours: _Colours | None = None) -> tuple[list[int], list[int]]:
    """Places of first images [n, 8, 8, 3] of one scene whose red against blue is the opposite of each other's, at least
    3 on both sides and all but a fifth of the scene's; ([], []) where there are none. Of several scenes the first."""
    others = spread_places(len(tiles), OTHERS)
    scene, red, told = colours or _colours(tiles[others], np.arange(len(others)))
    left = set(np.flatnonzero(told).tolist())
    red = red.copy()
    np.fill_diagonal(red, 1.0)
    while left:
        first = min(left)
        members = np.array([place for place in sorted(left) if place == first or scene[first, place] >= SCENE])
        left -= set(members.tolist())
        sides = [members[red[first, members] * sign >= COLOUR] for sign in (1, -1)]
        among = [middle(red[np.ix_(side, side)].reshape(-1)) if len(side) >= GROUP else 0.0 for side in sides]
        if min(among) < COLOUR or sum(map(len, sides)) < CLEAR * len(members):
            continue
        if middle(red[np.ix_(*sides)].reshape(-1)) <= -COLOUR:
            return others[sides[0]].tolist(), others[sides[1]].tolist()
    return [], []


class _Colours(NamedTuple):
    """What first images [n, 8, 8, 3] have to do with m of them; -1 with themselves."""

    scene: Floats
    """float64 [n, m], correlations of what an exchange of red and blue leaves as it is."""
    red: Floats
    """float64 [n, m], of red against blue."""
    told: NDArray[np.bool_]
    """bool [n], where that tells anything."""


def _colours(tiles: Floats, others: Places) -> _Colours:
    scene = _correlations(np.stack([tiles[..., 1], tiles[..., 0] + tiles[..., 2]], axis=-1), others)
    red = (tiles[..., 0] - tiles[..., 2]) / (tiles.sum(axis=-1) + 30.0)
    told = red.reshape(len(red), -1).std(axis=1) > CONTRAST
    red = red - medians(red.reshape(len(red), -1), axis=1)[:, None, None]
    limit = OBJECT * medians(np.abs(red).reshape(len(red), -1), axis=1)[:, None, None]
    limit[limit < CONTRAST] = np.inf
    return _Colours(scene, _correlations(np.clip(red, -limit, limit)[..., None], others), told)


def _exchanged(colours: _Colours, others: Places) -> list[OddLook]:
    """Episodes whose red against blue is the opposite of that of others of the same scene.

    The scene is told by green and the sum of red and blue, which the exchange leaves as they are; a tint of the light,
    which moves all tiles alike, counts as nothing.
    """
    if not (colours.told & (colours.red.min(axis=1) <= -COLOUR)).any():
        return []
    near = _nearest(colours.scene)
    scores = _median_of(colours.red, near)
    return [
        OddLook(int(place), EXCHANGED, float(scores[place]), -float(scores[place]))
        for place in np.flatnonzero(colours.told & (scores <= -COLOUR))
        if (scores[others[near[place]]] >= COLOUR).mean() >= AGREE
    ]


def _turned(tiles: Floats, others: Places) -> Iterator[OddLook]:
    """Episodes whose pattern is that of others once it is changed, while these are not like their own changed one."""
    units = _unit(tiles)
    changed = {
        name: np.maximum.reduce([_with_others(_unit(each), units, others) for each in change(tiles)])
        for name, change in CHANGES
    }
    like = {name: scores for name, scores in changed.items() if scores.max() >= TURNED}
    if not like:
        return
    as_is = _with_others(units, units, others)
    usual = _median_of(as_is, _nearest(as_is))
    for name, each in like.items():
        near = _nearest(each)
        scores = _median_of(each, near)
        odd = (scores >= TURNED) & (scores - usual >= MARGIN)
        plain = (usual >= TURNED) & (usual - scores >= MARGIN)
        for place in np.flatnonzero(odd):
            if plain[others[near[place]]].mean() >= AGREE:
                yield OddLook(int(place), name, float(usual[place]), float(scores[place]))
        for group in turned_groups(as_is, each, others):
            if (name == MEANT and group.halves) or (name == QUARTER and group.changed < NEARER):
                continue
            for place in group.places:  # each other's neighbours, as they are
                yield OddLook(place, name, group.as_is, group.changed, group.halves)


def _correlations(patterns: Floats, others: Places) -> Floats:
    """float64 [n, m], of patterns [n, 8, 8, C] with m others of them; -1 with themselves."""
    units = _unit(patterns)
    return _with_others(units, units, others)


def _with_others(changed: Floats, units: Floats, others: Places) -> Floats:
    """float64 [n, m], correlations of what patterns are changed to, [n, P], with m others as they are; -1 with
    themselves."""
    found: Floats = changed @ units[others].T
    found[others, np.arange(len(others))] = -1.0
    return found


def _nearest(scores: Floats) -> Places:
    """int64 [n, k], places among the others of those with the highest scores."""
    count = min(NEIGHBOURS, scores.shape[1] - 1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def _median_of(scores: Floats, near: Places) -> Floats:
    """float64 [n], the median score with those at the places [n, k]."""
    found: Floats = medians(scores[np.arange(len(scores))[:, None], near], axis=1)
    return found


def _unit(values: Floats) -> Floats:
    """float64 [n, P], each less its mean over the tiles and of length 1."""
    flat = (values - values.mean(axis=(1, 2), keepdims=True)).reshape(len(values), -1)
    length = np.sqrt((flat**2).sum(axis=1, keepdims=True))
    found: Floats = np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-9)
    return found


DETECTORS = (OneLook(),)
