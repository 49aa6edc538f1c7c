"""A trained run as a policy: observations to action chunks, prediction on recordings, closed loop."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_store import CHANNELS, HEIGHT, WIDTH, FakeStore, FakeText
from training import recipe

from fwdata.envs.base import Observation
from fwdata.errors import UsageError
from fwtrain.errors import CheckpointError, RunMismatch
from fwtrain.infer import evaluate
from fwtrain.infer.evaluate import EvalResult, evaluate_sample
from fwtrain.infer.policy import Policy
from fwtrain.infer.predict import predict
from fwtrain.model import Noise, sampling
from fwtrain.recipe import DeployRecipe
from fwtrain.train.folder import RunFolder
from fwtrain.train.run import set_threads, train


class FakeVae:
    """Latents that follow the picture's mean."""

    def encode_first(self, frame: np.ndarray) -> np.ndarray:
        assert frame.shape == (96, 64, 3)
        return np.full((CHANNELS, 1, HEIGHT, WIDTH), frame.mean() / 255, np.float16)


class CountingText(FakeText):
    """Counts what is encoded."""

    def __init__(self):
        self.prompts: list[str] = []

    def embedding(self, prompt: str) -> np.ndarray:
        self.prompts.append(prompt)
        return super().embedding(prompt)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    before = torch.get_num_threads()
    set_threads(1)
    out = tmp_path_factory.mktemp("policy") / "run"
    store = FakeStore()
    store.source = "robotwin"
    train(store, recipe("optim.steps=2"), out)
    yield out
    torch.set_num_threads(before)


@pytest.fixture
def policy(trained: Path) -> Policy:
    return Policy.load(trained, FakeVae(), text=CountingText(), device="cpu")


def cameras(value: int = 40) -> dict[str, np.ndarray]:
    return {name: np.full((48, 64, 3), value, np.uint8) for name in FakeStore.cameras}


STATE = np.linspace(-0.5, 0.5, 14, dtype=np.float32)


def test_act_gives_a_chunk_in_robot_units(policy: Policy):
    chunk = policy.act(cameras(), STATE, "lift the block", seed=3)
    assert chunk.shape == (32, 14)
    assert chunk.dtype == np.float32
    text = policy._text.embedding(
        "A video recorded from a robot's point of view executing the following instruction: lift the block"
    )
    first = np.full((1, CHANNELS, HEIGHT, WIDTH), np.float16(40 / 255), np.float32)
    generator = torch.Generator().manual_seed(3)
    normalised = sampling.sample(
        policy.model,
        torch.from_numpy(first),
        torch.from_numpy(text[None].astype(np.float32)),
        torch.from_numpy(policy.info.state.normaliser().apply(STATE)[None]),
        Noise(action=torch.randn(1, 32, 14, generator=generator)),
        video=False,
    ).action
    expected = policy.info.action.normaliser().invert(normalised.detach().numpy()[0])
    assert chunk == pytest.approx(expected, abs=1e-5)


def test_actions_depend_on_seed_state_picture_and_instruction(policy: Policy):
    base = policy.act(cameras(), STATE, "lift the block", seed=1)
    assert (base == policy.act(cameras(), STATE, "lift the block", seed=1)).all()
    for other in (
        policy.act(cameras(), STATE, "lift the block", seed=2),
        policy.act(cameras(), -STATE, "lift the block", seed=1),
        policy.act(cameras(200), STATE, "lift the block", seed=1),
        policy.act(cameras(), STATE, "drop it", seed=1),
    ):
        assert np.abs(base - other).max() > 1e-6


def test_text_is_encoded_once_per_instruction_with_the_prompt(policy: Policy):
    for instruction in ("lift", "drop", "lift"):
        policy.act(cameras(), STATE, instruction)
    prefix = "A video recorded from a robot's point of view executing the following instruction: "
    assert policy._text.prompts == [prefix + "lift", prefix + "drop"]


def test_a_batch_gives_what_single_calls_give(policy: Policy):
    seen = [Observation(cameras(10 * i), STATE * i, "lift") for i in range(3)]
    batch = policy.act_batch(seen, [5, 6, 7])
    single = [policy.act(o.cameras, o.state, o.instruction, seed=s) for o, s in zip(seen, (5, 6, 7), strict=True)]
    assert batch == pytest.approx(np.stack(single), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("left_camera"), "lacks camera 'left_camera'"),
        (lambda c: None, "state of 14 dimensions"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(policy: Policy, change, message: str):
    pictures = cameras()
    change(pictures)
    with pytest.raises(UsageError, match=message):
        policy.act(pictures, STATE if "camera" in message else STATE[:7], "lift")


def test_commands_follow_the_recipes_gripper_rules(trained: Path, policy: Policy):
    chunk = policy.act(cameras(), STATE, "lift")
    assert (policy.commands(chunk) == chunk).all()
    assert policy.execute == 32
    rules = DeployRecipe(execute=10, gripper_sign=(6,), gripper_clip=(2, 13))
    ruled = Policy(policy.model, policy.info, deploy=rules)
    rows = np.zeros((4, 14), np.float32)
    rows[:, 6], rows[:, 13], rows[:, 5] = (1.0, 0.0, 0.51, -0.2), (1.2, -0.3, 0.4, 1.0), 7.0
    sent = ruled.commands(rows)
    assert sent[:, 6].tolist() == [-1, 1, -1, 1]  # 1 open, 0 closed become -1 open, +1 closed
    assert sent[:, 13] == pytest.approx([1, 0, 0.4, 1])
    assert (sent[:, 5] == 7).all() and sent.dtype == np.float32 and rows[0, 13] == np.float32(1.2)
    assert ruled.execute == 10


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"execute": 33}, "deploy.execute is 33, the model predicts 32 actions"),
        ({"gripper_sign": (14,)}, r"deploy.gripper_sign names dimension 14, actions have 0\.\.13"),
        ({"gripper_clip": (-1,)}, "deploy.gripper_clip names dimension -1"),
    ],
)
def test_rules_that_do_not_fit_the_actions_are_refused(policy: Policy, rules, message: str):
    with pytest.raises(UsageError, match=message):
        Policy(policy.model, policy.info, deploy=DeployRecipe(**rules))


def test_rules_come_from_the_run_and_may_change_when_it_continues(trained: Path, tmp_path: Path):
    for name in ("run.json", "recipe.yaml"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    changed = recipe("optim.steps=2", "deploy={execute: 7, gripper_clip: [6]}")
    RunFolder(tmp_path).prepare(changed, resume=False, fresh=False)
    (tmp_path / "recipe.yaml").write_text(changed.to_yaml())
    assert Policy.load(tmp_path, untrained=True, device="cpu").deploy.gripper_clip == (6,)


def test_only_the_latest_instructions_are_remembered(policy: Policy, monkeypatch):
    monkeypatch.setattr("fwtrain.infer.policy.PROMPTS_KEPT", 2)
    for instruction in ("a", "b", "a", "c", "a", "b"):
        policy.context(instruction)
    assert [prompt[-1] for prompt in policy._text.prompts] == ["a", "b", "c", "b"]
    assert len(policy._contexts) == 2


def test_untrained_has_the_same_architecture_and_other_weights(trained: Path):
    weights = Policy.load(trained, device="cpu").model.state_dict()
    fresh = Policy.load(trained, untrained=True, seed=9, device="cpu").model.state_dict()
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in fresh.items()}
    assert not torch.equal(weights["mixtures.action.head.weight"], fresh["mixtures.action.head.weight"])


def test_folders_that_are_no_run_are_refused(tmp_path: Path, trained: Path):
    with pytest.raises(UsageError, match="is not a run folder"):
        Policy.load(tmp_path)
    for name in ("run.json", "recipe.yaml"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        Policy.load(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        Policy.load(tmp_path)


def test_a_vae_with_other_weights_is_refused(trained: Path, tmp_path: Path):
    info = json.loads((trained / "run.json").read_text())
    info["latents"] |= {"spec": "tiny", "identity": {"vae": {"weights": "0" * 64, "compute_dtype": "float32"}}}
    (tmp_path / "run.json").write_text(json.dumps(info))
    (tmp_path / "recipe.yaml").write_bytes((trained / "recipe.yaml").read_bytes())
    policy = Policy.load(tmp_path, text=FakeText(), untrained=True, device="cpu")
    with pytest.raises(RunMismatch, match="other weights"):
        policy.act(cameras(), STATE, "lift")


def test_prediction_beside_the_recording(trained: Path):
    store = FakeStore()
    found = predict(trained, store, 1, 5, seed=2, device="cpu")
    assert found.action.shape == (32, 14)
    assert (found.recorded == store.episodes[1].action()[5:]).all()
    assert found.mae == pytest.approx(np.abs(found.action[:15] - found.recorded).mean())
    assert found.names == store.action_names
    for episode, frame, message in ((9, 0, "episodes 0..3"), (1, 20, "frames 0..19"), (-1, 0, "episodes 0..3")):
        with pytest.raises(UsageError, match=message):
            predict(trained, store, episode, frame, device="cpu")
    store.cache.fingerprint = "else"
    with pytest.raises(RunMismatch, match="trained on latents fake-cache, this store has else"):
        predict(trained, store, 0, 0, device="cpu")
    other = FakeStore()
    other.source, other.action_names = "robotwin", tuple(f"wheel{number}" for number in range(14))
    with pytest.raises(RunMismatch, match=r"has 14 action dimensions \(joint0, .*, this store 14 \(wheel0"):
        predict(trained, other, 0, 0, device="cpu")


class StandStill:
    """Stands in for a policy: keeps the current state. Records the calls."""

    def __init__(self, info):
        self.info = info
        self.calls: list[list[int]] = []

    def act_batch(self, observations, seeds, *, steps):
        self.calls.append(list(seeds))
        return np.stack([np.repeat(o.state[None], 32, axis=0) for o in observations])


def test_closed_loop_runs_every_episode_to_its_end(trained: Path, monkeypatch):
    monkeypatch.setattr(evaluate, "LOCKSTEP", 2)
    policy = StandStill(RunFolder(trained).info())
    result = evaluate_sample(policy, 3, seed=4, execute=24)
    assert (result.successes, result.episodes, result.mean_steps) == (0, 3, 96.0)
    assert [len(call) for call in policy.calls] == [2] * 4 + [1] * 4
    seeds = [seed for call in policy.calls for seed in call]
    assert len(set(seeds)) == len(seeds)
    assert sum(count for _, count in result.by_task.values()) == 3


def test_closed_loop_does_not_depend_on_how_many_run_side_by_side(trained: Path, policy: Policy, monkeypatch):
    side_by_side = evaluate_sample(policy, 3, execute=32, steps=2)
    monkeypatch.setattr(evaluate, "LOCKSTEP", 1)
    assert evaluate_sample(policy, 3, execute=32, steps=2) == side_by_side


class Scripted:
    """A world whose episode n ends after 4 - n steps, well where n is even."""

    def __init__(self, kind: str) -> None:
        self.steps = 0

    def reset(self, seed: int, number: int) -> SimpleNamespace:
        self.number = number
        return SimpleNamespace(cameras={}, state=STATE, instruction="lift", task="lift")

    def step(self, action: np.ndarray, look: bool) -> SimpleNamespace:
        self.steps += 1
        return self.reset(0, self.number)

    @property
    def done(self) -> bool:
        return self.steps >= 4 - self.number

    @property
    def success(self) -> bool:
        return self.number % 2 == 0


def test_outcomes_are_in_the_order_of_the_episodes(trained: Path, monkeypatch):
    monkeypatch.setattr(evaluate, "SampleEnv", Scripted)
    result = evaluate_sample(StandStill(RunFolder(trained).info()), 4, execute=1)
    assert result.outcomes == (True, False, True, False)
    assert result.mean_steps == 2.5


def test_an_expert_succeeds_in_closed_loop(trained: Path, monkeypatch):
    """The world's own expert, played through the same loop, solves its episodes."""
    environments = []
    made = evaluate.SampleEnv

    def make(kind):
        environments.append(made(kind))
        return environments[-1]

    monkeypatch.setattr(evaluate, "SampleEnv", make)
    expert = SimpleNamespace(info=RunFolder(trained).info())
    expert.act_batch = lambda seen, seeds, steps: np.stack(
        [np.repeat(env.expert_action()[None], 32, axis=0) for env in environments if not env.done]
    )
    result = evaluate_sample(expert, 4, execute=1)
    assert result.rate == 1.0
    assert 5 < result.mean_steps < 96
    assert result.interval[1] == pytest.approx(1.0)


@pytest.mark.parametrize(("episodes", "execute"), [(0, 24), (1, 0), (1, 33)])
def test_numbers_out_of_range_are_refused(trained: Path, episodes: int, execute: int):
    with pytest.raises(UsageError, match="must be"):
        evaluate_sample(StandStill(RunFolder(trained).info()), episodes, execute=execute)


def test_interval_of_a_rate():
    low, high = EvalResult(8, 10, 50.0).interval
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    widths = [high - low for low, high in (EvalResult(n // 2, n, 1.0).interval for n in (10, 40, 160))]
    assert all(a > b for a, b in pairwise(widths))


def test_a_run_of_an_unknown_robot_cannot_be_evaluated(trained: Path):
    info = RunFolder(trained).info()
    policy = StandStill(info.model_copy(update={"source": "toaster"}))
    with pytest.raises(UsageError, match="toaster"):
        evaluate_sample(policy, 1)
    assert replace(EvalResult(1, 2, 3.0), successes=2).rate == 1.0
