"""A camera's lag of a part of the episodes against that of all, and lags of a few episodes (d1)."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from fwdata.evidence import own_lags
from fwdata.evidence.detectors import delay
from fwdata.evidence.own_lags import OwnLag
from fwdata.evidence.records import DatasetVerdict, MotionTrace
from fwdata.evidence.sentences import refusal

REACH = 7


def _traces(count: int) -> list[MotionTrace]:
    return [MotionTrace("head", 16.0, np.ones(40), np.ones((40, 2)), True) for _ in range(count)]


def _peaks(lags: list[int]) -> np.ndarray:
    """float64 [n, 2 REACH + 1], 0.9 at each episode's own lag and less on both sides."""
    return 0.9 - 0.05 * np.abs(np.arange(-REACH, REACH + 1) - np.array(lags)[:, None])


def test_an_episode_between_both_parts_is_of_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = _peaks([0, 0, 0, 1, 2, 2, 2])

    class Shown(SimpleNamespace):
        most = staticmethod(lambda: np.ones(7))
        settled = staticmethod(lambda starts: scores)

    monkeypatch.setattr(own_lags, "_AtLags", lambda traces, reach: Shown())
    monkeypatch.setattr(own_lags, "reach_of", lambda traces: REACH)
    near, far = own_lags.parted(_traces(7))
    assert near and far and {each.place for each in near}.isdisjoint(each.place for each in far)
    assert len(near) + len(far) == 7


@pytest.mark.parametrize(
    ("lags", "fixed", "mounted"),
    [([0, 0, -1, -1, 2, 1, 1, 2, 1, 2], True, False), ([0, 0, 0, 1, 0, 4, 4, 5, 4, 4], True, True)],
)
def test_cameras_on_arms_part_by_more_rows(
    monkeypatch: pytest.MonkeyPatch, lags: list[int], fixed: bool, mounted: bool
) -> None:
    """The first are the own lags of ten clean episodes of the sample world's left wrist camera."""

    class Shown(SimpleNamespace):
        most = staticmethod(lambda: np.ones(10))
        settled = staticmethod(lambda starts: _peaks(lags))

    monkeypatch.setattr(own_lags, "_AtLags", lambda traces, reach: Shown())
    monkeypatch.setattr(own_lags, "reach_of", lambda traces: REACH)
    on_arm = [dataclasses.replace(trace, mounted=True) for trace in _traces(10)]
    assert (bool(own_lags.parted(_traces(10))[1]), bool(own_lags.parted(on_arm)[1])) == (fixed, mounted)


@pytest.mark.parametrize(("together", "told"), [(5.2, "5.2 rows behind"), (1.0, "3 of 10"), (-1.0, "3 of 10")])
def test_parts_whose_lags_are_not_that_of_all_together_tell_nothing(
    monkeypatch: pytest.MonkeyPatch, together: float, told: str
) -> None:
    wide = DatasetVerdict(
        "camera_delay", "contradicted", "head", value=together, interval=(0.1, 5.3), against=10, action="warn"
    )
    pooled = dataclasses.replace(wide, measured=f"{together} rows behind")
    parts = [tuple(OwnLag(i, lag, 0.9, 0.8) for i in places) for lag, places in ((0, range(7)), (-2, range(7, 10)))]
    monkeypatch.setattr(delay.CameraDelay, "_pooled", lambda *of: pooled)
    monkeypatch.setattr(own_lags, "exceptions", lambda traces: ())
    monkeypatch.setattr(own_lags, "parted", lambda traces: parts)
    found = delay.CameraDelay()._judged("head", _traces(10), [str(i) for i in range(10)])
    assert told in (f"{found.against} of {found.against + found.episodes_for}", found.measured)
    assert found.verdict == ("mixed" if told == "3 of 10" else "contradicted")


@pytest.mark.parametrize(("lag", "gain", "wrong"), [(1.8, 0.019, False), (1.8, 0.03, True), (3.3, 0.019, True)])
def test_a_small_lag_of_five_episodes_must_explain_their_images_better(
    monkeypatch: pytest.MonkeyPatch, lag: float, gain: float, wrong: bool
) -> None:
    told = SimpleNamespace(lag=lag, gain=gain, score=0.88, interior=True, interval=(lag - 0.6, lag + 0.6), near=1.0)
    monkeypatch.setattr(delay, "estimate_lag", lambda traces, reach: told)
    assert (delay.CameraDelay()._pooled("head", _traces(5)).verdict == "contradicted") == wrong


def test_an_option_of_one_subject_is_named_whatever_other_subjects_say() -> None:
    grippers, state = (
        DatasetVerdict("one_scale", verdict, subject, against=9, action=action, decided="one scale", measured="two")
        for verdict, subject, action in (("contradicted", "grippers", "stop"), ("confirmed", "state", "note"))
    )
    told = refusal([grippers, state], (), {"one_scale grippers": "--gripper-unit", "one_scale": "--other"})
    assert told is not None and "--gripper-unit would agree" in told
    told = refusal([grippers, state], (), {"one_scale": "--other"})
    assert told is not None and "--other" not in told
