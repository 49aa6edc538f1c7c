"""Recordings that are read before their turn: what is measured of them, and what becomes of one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evidence_episodes import clean_set
from fixtures import run_convert

from converters.libero import Converter
from fwdata.api import EpisodeRef
from fwdata.bench.recordings import write_recordings
from fwdata.errors import BadEpisode
from fwdata.evidence.measure import measure, measure_rows
from fwdata.evidence.registry import all_detectors
from fwdata.manifest import load_manifest
from fwdata.pipeline import ahead, evidence
from fwdata.store import pooling

EPISODES = 5
ACCEPTED = {detector.name: "made" for detector in all_detectors()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_recordings("libero", root, EPISODES, 40)
    return root


def convert(raw: Path, out: Path) -> tuple[list[tuple[str, str]], dict[str, bytes]]:
    report = run_convert(raw, out, load_manifest("libero"), accept=ACCEPTED)
    found = (p for below in ("evidence", "parts") for p in (out / below).rglob("*") if p.is_file())
    return [(str(where), why) for where, why in report.quarantined], {
        p.relative_to(out).as_posix(): p.read_bytes() for p in found
    }


@pytest.mark.parametrize("light", [True, False])
def test_rows_measured_together_and_images_later_tell_what_one_episode_after_the_other_does(light: bool) -> None:
    episodes = clean_set(4)
    rows = [episode.seen({}, {}, 1) for episode in episodes]
    for episode, alone, known in zip(episodes, rows, measure_rows(rows), strict=True):
        assert known.verdicts and not any(verdict.subject == "head" for verdict in known.verdicts)
        every = 2 if light else 1
        shown = {name: images[::every] for name, images in episode.thumbnails.items()}
        together = measure(alone.seen(shown, episode.looks, every), light, known)
        expected = measure(episode.seen(shown, episode.looks, every), light)
        assert together.verdicts == expected.verdicts and together.options == expected.options
        assert {verdict.subject for verdict in together.verdicts} >= set(shown)


def test_what_was_computed_of_rows_is_kept_and_nothing_of_images() -> None:
    episode = clean_set(1)[0]
    measure(episode)
    later = episode.seen({"head": episode.thumbnails["head"][:40]}, {}, 3)
    assert later.columns is episode.columns and later.kept is episode.kept
    assert list(later.motion) == ["head"] and later.motion["head"].every == 3
    np.testing.assert_array_equal(later.speed_of("head"), episode.speed_of("head"))


def test_nothing_depends_on_how_many_are_read_ahead(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = convert(raw, tmp_path / "together.zarr")
    assert not told[0]
    for name, most, numbers in (("alone", 1, ahead.MOST_NUMBERS), ("few", ahead.MOST, 1)):
        monkeypatch.setattr(ahead, "MOST", most)
        monkeypatch.setattr(ahead, "MOST_NUMBERS", numbers)
        assert convert(raw, tmp_path / f"{name}.zarr") == told


def test_where_measuring_together_fails_each_is_measured_in_its_turn(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = convert(raw, tmp_path / "together.zarr")

    def failing(episodes: object) -> None:
        raise ValueError("of one of them")

    monkeypatch.setattr(ahead, "measure_rows", failing)
    assert convert(raw, tmp_path / "alone.zarr") == told


def test_one_that_cannot_be_read_is_left_out_alone(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Converter.read
    whole = convert(raw, tmp_path / "whole.zarr")

    def damaged(self: Converter, root: Path, ref: EpisodeRef):
        if "demo_1" in ref.id and "stove" in ref.id:
            raise BadEpisode("the file ends early")
        return read(self, root, ref)

    monkeypatch.setattr(Converter, "read", damaged)
    [(where, why)], stored = convert(raw, tmp_path / "less.zarr")
    assert "demo_1" in where and "stove" in where and why == "the file ends early"
    left, before = (b"".join(v for k, v in each.items() if k.startswith("evidence/p")) for each in (stored, whole[1]))
    assert before.count(b'"id"') == EPISODES and left.count(b'"id"') == EPISODES - 1


def test_what_all_are_compared_by_is_that_of_the_stored_rows(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    rows_of = pooling._rows_of
    monkeypatch.setattr(pooling, "_rows_of", lambda *given: read.append(given) or rows_of(*given))
    quick = convert(raw, tmp_path / "quick.zarr")
    assert not read and any(path.startswith("evidence") for path in quick[1])
    monkeypatch.setattr(evidence, "MOST_COMPARED", 0)
    assert convert(raw, tmp_path / "slow.zarr") == quick and read
