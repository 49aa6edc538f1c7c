"""What makes the score of a plan mean something else, and what a run lacks for it."""

from __future__ import annotations

from dataclasses import replace

import fake_benchmark
import pytest
from fake_store import FakeStore
from serving import small_policy

from converters.libero.hdf5 import STATE_NAMES, TARGET_NAMES
from fwdata.envs.benchmarks.libero import BENCHMARK, PROTOCOLS
from fwdata.errors import UsageError
from fwtrain.infer.trials.plan import EvalPlan, ProtocolChanges, check_fit, doubts, plan_evaluation
from fwtrain.model import Denoising
from fwtrain.train.folder import RunInfo

ENV = "fake_benchmark:BENCHMARK"


@pytest.fixture(scope="module")
def info() -> RunInfo:
    return small_policy().info


def plan(**options) -> EvalPlan:
    return plan_evaluation(ENV, fake_benchmark.BENCHMARK, ("one",), **options)


def test_what_makes_a_score_mean_something_else_is_a_warning(info: RunInfo):
    asked = plan(trials="1")
    schedule = info.model.schedule
    trained = Denoising(video_shift=schedule.video_shift, action_shift=schedule.action_shift)
    assert doubts(info, asked, trained) == doubts(info, asked, Denoising()) == []
    (said,) = doubts(info, asked, replace(trained, action_shift=3.0))
    assert said == f"the action stream is sampled at shift 3, the run was trained with {schedule.action_shift:g}"
    newer = replace(asked, protocol=replace(asked.protocol, versions={"fakesim": "0.9"}))
    (said,) = doubts(info, newer, trained)
    assert said.startswith("fakesim is 1.0, the published scores of protocol usual were made with 0.9")
    named = info.state.names[3]
    (said,) = doubts(info, replace(asked, robot=replace(asked.robot, foreign=(named[-4:],))), trained)[:1]
    assert f"the run's state has a dimension {named!r}, which the environment" in said
    absolute = info.action.model_copy(update={"names": TARGET_NAMES})
    run = info.model_copy(update={"action": absolute, "state": absolute.model_copy(update={"names": STATE_NAMES})})
    said, speed = doubts(run, replace(asked, robot=BENCHMARK.robot), trained)
    assert f"recordings have {run.fps:g} actions per second, the environment {ENV} carries out 20: " in speed
    assert doubts(run, replace(asked, robot=replace(BENCHMARK.robot, foreign=(), fps=run.fps)), trained) == []
    assert "the run's action has a dimension 'target_position_x'" in said, "the simulator takes deltas"
    assert PROTOCOLS["fastwam"].versions == {"mujoco": "3.3.2"}


def test_images_of_another_size_than_the_recorded_are_a_warning(info: RunInfo):
    asked, trained = plan(trials="1"), Denoising()

    def said(resolution: int, *recorded: tuple[int, int]) -> list[str]:
        protocol = replace(asked.protocol, resolution=resolution)
        run = info.model_copy(update={"recorded_sizes": recorded})
        return doubts(run, replace(asked, protocol=protocol), trained)

    assert said(256, (256, 256)) == said(256, (240, 320), (256, 256)) == said(64) == []
    assert said(256, (128, 128)) == [
        "the run was trained on recordings of 128x128 pixels, protocol usual renders 256x256: it sees other images; "
        "pass --resolution 128 to render as recorded"
    ]
    assert said(256, (240, 320))[0].endswith("240x320 pixels, protocol usual renders 256x256: it sees other images")
    height, width = info.manifest.stitch.camera_size
    (older,) = said(600)
    assert f"trained on images of {height}x{width} pixels, protocol usual renders 600x600" in older


def test_a_run_records_the_sizes_of_its_recordings():
    store = FakeStore()
    for number, episode in enumerate(store.episodes):
        cameras = dict.fromkeys(store.cameras, (128 + number % 2, 128))
        episode.metadata = {"camera_sizes": {**cameras, "unused": (9, 9)}}
    assert small_policy(store=store).info.recorded_sizes == ((128, 128), (129, 128))
    assert small_policy().info.recorded_sizes == ()


def test_more_actions_than_a_chunk_has_are_refused(info: RunInfo):
    with pytest.raises(UsageError, match="--execute asks for 40 actions of a chunk, the run predicts 32; pass --exe"):
        check_fit(info, plan(changes=ProtocolChanges(execute=40)))
