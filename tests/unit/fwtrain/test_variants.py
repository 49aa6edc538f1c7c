"""Variants as data: optional-idm by its exact consequences, and one from outside the package, with no file touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_store import FakeStore
from literal_fastwam import Literal, literal_losses, literal_sample
from model_case import lively, random_batch, small_config
from paths import DATA
from safetensors.torch import load_file
from training import recipe

from fwdata.errors import ManifestError
from fwtrain import variants
from fwtrain.bench.computed import computed
from fwtrain.checks.attention_leaks import PUBLISHED, check_reach
from fwtrain.compare import make_plan, run_comparison
from fwtrain.compare.run import states
from fwtrain.infer.policy import Policy
from fwtrain.model import VARIANTS, Denoising, Draws, ModelConfig, Noise, allowed, draw, sampling, training
from fwtrain.model.flops import forward_flops
from fwtrain.train.run import train
from fwtrain.variants import FIRST_FRAME, IDM, JOINT, Mode, Variant

pytestmark = pytest.mark.usefixtures("memory_store")

GOLDEN = DATA / "fastwam_golden_2026_08"
OPTIONAL = "optional-idm"


def step(variant: str, share: float | None = None, size: int = 4):
    """(model, batch, draws) of a training step; optional-idm's samples 0 and 3 are below a share of 0.5."""
    changes = {} if share is None else {"action_idm_prob": share}
    model = lively(small_config(variant, cond_noise_prob=0.5, **changes))
    batch = random_batch(model.config, size)
    draws = draw(batch, OPTIONAL, torch.Generator().manual_seed(2), cond_noise_prob=0.5)
    return model, batch, replace(draws, mode_uniform=torch.tensor([0.1, 0.5, 0.9, 0.4])[:size])


def gradients(model, losses):
    model.zero_grad()
    losses.total.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(("share", "other"), [(1.0, "idm"), (0.0, "fastwam")])
def test_a_share_of_one_or_none_is_another_variant_bit_for_bit(share, other):
    one, batch, draws = step(OPTIONAL, share)
    two = step(other)[0]
    left, right = training.losses(one, batch, draws), training.losses(two, batch, draws)
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
    before, after = gradients(one, left), gradients(two, right)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_sample_of_a_mixed_batch_is_that_of_its_mode():
    model, batch, draws = step(OPTIONAL)
    mixed = training.loss_terms(model, batch, draws, all_frames=True)
    for name, rows in (("idm", [0, 3]), ("fastwam", [1, 2])):  # 0.5 is not below 0.5
        alone = training.loss_terms(step(name)[0], batch, draws, all_frames=True)
        for key, value in vars(alone).items():
            torch.testing.assert_close(getattr(mixed, key)[rows], value[rows], rtol=1e-4, atol=1e-5, msg=key)


def test_a_mixed_batch_equals_the_official_form_with_a_mask_per_sample():
    model, batch, draws = step(OPTIONAL)
    tensors = {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}

    def wide(item):
        values = {k: v.double() for k, v in vars(item).items() if torch.is_tensor(v) and v.is_floating_point()}
        return replace(item, **values)

    found = training.losses(model, batch, draws)
    video, action = literal_losses(Literal(tensors, model.config), wide(batch), wide(draws))
    torch.testing.assert_close(found.video.double(), video, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.action.double(), action, rtol=1e-4, atol=1e-5)
    (video + action).backward()
    for name, value in gradients(model, found).items():
        expected = tensors[name].grad
        expected = torch.zeros_like(value) if expected is None else expected.float()
        torch.testing.assert_close(value, expected, rtol=2e-3, atol=2e-4, msg=name)


def test_processes_that_share_layers_make_a_pass_of_either_mode():
    """A batch of one mode only: the other's pass is made too, and changes nothing but which collectives are met."""
    model, batch, draws = step(OPTIONAL)
    draws = replace(draws, mode_uniform=torch.zeros(4))
    calls: list[int] = []
    hook = model.action.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    plain = training.losses(model, batch, draws)
    one = gradients(model, plain)
    model.sharded = True
    shared = training.losses(model, batch, draws)
    hook.remove()
    assert calls == [4, 4, 1]
    assert all(torch.equal(a, b) for a, b in zip(plain, shared, strict=True))
    for name, value in gradients(model, shared).items():
        torch.testing.assert_close(value, one[name], msg=name)


def test_draws_come_in_upstreams_order():
    recorded = load_file(GOLDEN / "seeded_draws.safetensors")
    batch = random_batch(small_config(latent_grid=(3, 4, 6)), 4)
    batch = replace(batch, action=torch.zeros(4, 16, 7), action_is_pad=torch.zeros(4, 16, dtype=torch.bool))
    names = {"u_video_cond": "u_cond", "noise_video_cond": "noise_cond", "idm_uniform": "mode_uniform"}
    for tag, share in (("clean", 0.0), ("cond-noise", 0.5)):
        found = draw(batch, OPTIONAL, torch.Generator().manual_seed(9106), cond_noise_prob=share)
        kept = {
            key.split(".")[2]: value
            for key, value in recorded.items()
            if key.startswith(f"{tag}.") and key[len(tag) + 1].isdigit()
        }
        for name, value in kept.items():
            ours = getattr(found, names.get(name, name))
            assert torch.equal(ours, value.view(ours.shape)), (tag, name)
        assert sum(value is not None for value in vars(found).values()) == len(kept)


def test_masks_of_the_official_class():
    import numpy as np

    recorded = np.load(GOLDEN / "attention_masks.npz")
    for name in recorded.files:
        kind, tag = name.split(".")
        frames, tokens, actions = (int(part[1:]) for part in tag.split("_"))
        mode = "idm" if kind.endswith("full") else "first-frame"
        np.testing.assert_array_equal(allowed(OPTIONAL, "train", frames, tokens, actions, mode), recorded[name] != 0)


@pytest.mark.parametrize(("mode", "other"), [("idm", "idm"), (None, "idm"), ("first-frame", "fastwam")])
def test_each_mode_samples_as_its_variant_bit_for_bit(mode, other):
    one, two = (lively(small_config(name)) for name in (OPTIONAL, other))
    batch = random_batch(one.config)
    seen = batch.first, batch.context, batch.proprio
    found = sampling.sample(
        one, *seen, Noise(generator=torch.Generator().manual_seed(1)), Denoising(steps=3, mode=mode)
    )
    same = sampling.sample(two, *seen, Noise(generator=torch.Generator().manual_seed(1)), Denoising(steps=3))
    assert torch.equal(found.action, same.action) and torch.equal(found.latents, same.latents)


def test_a_mode_a_variant_does_not_have_is_refused():
    model = lively(small_config(OPTIONAL))
    batch = random_batch(model.config)
    with pytest.raises(ValueError, match="'optional-idm' has no mode 'joint'; it has idm, first-frame"):
        sampling.sample(model, batch.first, batch.context, batch.proprio, how=Denoising(mode="joint"))
    with pytest.raises(ValueError, match="needs mode_uniform"):
        training.losses(model, batch, replace(step(OPTIONAL)[2].rows(torch.tensor([0, 1])), mode_uniform=None))


def test_streams_of_unequal_shifts_have_grids_of_their_own():
    model = lively(small_config("joint", schedule={"video_shift": 5.0, "action_shift": 1.0}))
    batch = random_batch(model.config)
    seen = batch.first, batch.context, batch.proprio
    generator = torch.Generator().manual_seed(3)
    noise = Noise(*(torch.randn(shape, generator=generator) for shape in (batch.action.shape, (2, 48, 3, 4, 4))))
    tensors = {name: p.detach().double() for name, p in model.named_parameters()}
    given = [value.double() for value in (*seen, noise.action, noise.video)]
    found = sampling.sample(model, *seen, noise, Denoising(steps=3))
    action, latents = literal_sample(Literal(tensors, model.config), *given, 3)
    torch.testing.assert_close(found.action.double(), action, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.latents.double(), latents, rtol=0, atol=1e-3)
    own = Denoising(steps=3, video_shift=5.0, action_shift=1.0)
    assert torch.equal(sampling.sample(model, *seen, noise, own).action, found.action)
    one = sampling.sample(model, *seen, noise, Denoising(steps=3, video_shift=1.0))
    assert not torch.equal(one.action, found.action)


def test_probabilities_are_the_variants_unless_given():
    assert (small_config(OPTIONAL).cond_noise_prob, small_config(OPTIONAL).action_idm_prob) == (0.0, 0.5)
    assert (small_config("idm").cond_noise_prob, small_config("idm").action_idm_prob) == (0.5, None)
    assert small_config("idm").replace(variant=OPTIONAL).cond_noise_prob == 0.0
    assert "action_idm_prob" not in small_config("idm").to_json()  # as runs before there was such a key
    assert ModelConfig.from_json(small_config(OPTIONAL).to_json()) == small_config(OPTIONAL)
    for make in (lambda: small_config("idm", action_idm_prob=0.5), lambda: recipe("model.action_idm_prob=0.5")):
        with pytest.raises(ManifestError, match="has one mode and does not read action_idm_prob"):
            make()
    assert recipe("model.variant=optional-idm", "model.action_idm_prob=0.25").settled(1.0).model.action_idm_prob == 0.25


def test_the_copy_is_computed_for_the_samples_that_see_it():
    flops = {
        share: forward_flops(ModelConfig.wan22_5b(7, 8, variant=OPTIONAL, action_idm_prob=share))
        for share in (0, 0.5, 1)
    }
    assert flops[0] == forward_flops(ModelConfig.wan22_5b(7, 8))
    assert flops[1] == forward_flops(ModelConfig.wan22_5b(7, 8, variant="idm"))
    assert flops[0.5] == pytest.approx((flops[0] + flops[1]) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["idm", "first-frame"])
def test_a_run_of_optional_idm_trains_resumes_and_acts_in_both_modes(mode: str, tmp_path: Path, call):
    chosen, stops = recipe("model.variant=optional-idm"), iter([False, False, True])
    train(FakeStore(), chosen, tmp_path / "cut", should_stop=lambda: next(stops, True))
    train(FakeStore(), chosen, tmp_path / "cut")
    train(FakeStore(), chosen, tmp_path / "whole")
    one, two = (Policy.load(tmp_path / name, device="cpu", sampling=Denoising(mode=mode)) for name in ("cut", "whole"))
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    flags = ("predict", tmp_path / "whole", "--store", "s", "--threads", 1, "--json", "--steps", 2)
    code, out, err = call(*flags, "--mode", mode)
    assert code == 0, err
    assert json.loads(out)["sampling"] == {"steps": 2, "mode": mode, "video_shift": 5.0, "action_shift": 1.0}
    code, _, err = call(*flags, "--mode", "joint")
    assert code == 2 and "has no mode 'joint'; it has idm, first-frame" in err


# --- a variant from outside ------------------------------------------------------------------------------------------

LATER = Variant(
    "later-only",
    (Mode("drafted", ("copy",), "video-first"), Mode("both", ("future",), "joint")),
    probabilities={variants.COND_NOISE: 0.25, variants.MODE_SHARE: 0.75},
)
"""Actions see the later frames and not the first, in a copy or beside them."""


@pytest.fixture
def later(monkeypatch):
    """The variant as an installed package brings it."""
    monkeypatch.setattr(variants, "VARIANTS", VARIANTS)
    before = dict(VARIANTS)
    entry = type("Entry", (), {"name": "later", "value": "mypackage:LATER", "load": lambda self: LATER})()
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry] if group == "fwtrain.variants" else [])
    variants.register_plugins()
    yield LATER.name
    VARIANTS.clear()
    VARIANTS.update(before)


@pytest.mark.slow
def test_a_variant_from_outside_trains_samples_compares_and_is_checked(later, call, tmp_path: Path):
    config = small_config(later)
    assert (config.cond_noise_prob, config.action_idm_prob) == (0.25, 0.75)
    cells = check_reach(config)
    assert all(cell.ok for cell in cells) and {cell.phase for cell in cells} == {
        "train drafted", "train both", "sample drafted", "sample both"
    }  # fmt: skip
    assert (later, "both") not in PUBLISHED
    made = make_plan(recipe("optim.steps=2"), tmp_path / "c", variants=("fastwam", later), env="none", seeds=(0,))
    run_comparison(FakeStore(), made, device="cpu")
    assert all(state.judged for state in states(made))
    for mode in ("drafted", "both"):
        policy = Policy.load(made.folder(made.cells[1]), device="cpu", sampling=Denoising(mode=mode, steps=2))
        assert policy.sampling.mode == mode
    for command in (
        ("check-mask", "--variant", later),
        ("plan", "--recipe", "tiny", "--set", f"model.variant={later}", "--gpu", 24),
        ("bench", "latency", "--variant", later, "--steps", 2, "--repeats", 1, "--size", "tiny"),
        ("bench", "train", "--computed"),
    ):
        code, out, err = call(*command, *(() if command[0] == "plan" or "train" in command else ("--threads", 1)))
        assert code == 0, err
        assert command[0] == "plan" or later in out
    assert len(computed()) == 2 * sum(len(rules.modes) for rules in VARIANTS.values())


def test_a_leak_in_a_variant_from_outside_is_caught(later, monkeypatch):
    monkeypatch.setitem(PUBLISHED, (later, "both"), (frozenset({"first", "action"}),) * 2)
    wrong = {(c.phase, c.query, c.key) for c in check_reach(small_config(later)) if not c.ok}
    assert {("train both", "action", "future"), ("sample both", "action", "future")} <= wrong


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mode("x", ("past",), "joint"), "unknown group 'past'"),
        (lambda: Mode("x", ("future",), "first-frame"), "is for actions that see"),
        (lambda: Mode("x", ("copy", "future"), "video-first"), "a copy stands for the finished video"),
        (lambda: Variant("x", ()), "needs one mode, or two"),
        (lambda: Variant("x", (JOINT, JOINT)), "needs one mode, or two of different names"),
        (lambda: Variant("x", (IDM,)), r"needs defaults of the probability keys \['cond_noise_prob'\], found \[\]"),
        (lambda: variants.register(Variant("joint", (FIRST_FRAME,))), "there is a variant 'joint' already"),
    ],
)
def test_variants_that_cannot_be_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def installed(folder: Path, text: str) -> dict[str, str]:
    """The environment of a process in which a package with one entry point is installed."""
    (folder / "mypackage.py").write_text(text)
    about = folder / "mypackage-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[fwtrain.variants]\nmine = mypackage:MINE\n")
    paths = (str(folder), str(Path(variants.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from fwtrain.variants import *\nMINE = Variant('mine', (Mode('mine', ('future',), 'joint'),))", ""),
        (
            "MINE = 3",
            "variant 'mine' of group fwtrain.variants: expected a fwtrain.variants.Variant",
        ),
        ("", "has no attribute 'MINE'; fix or uninstall its package"),
    ],
)
def test_an_installed_package_adds_a_variant(text: str, said: str, tmp_path: Path):
    program = "import fwtrain.variants as v; print(*v.VARIANTS)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=installed(tmp_path, text), capture_output=True, text=True, check=False
    )
    assert said in done.stderr
    assert done.stdout.split() == ([] if said else [*VARIANTS, "mine"])


def test_draws_of_rows_are_those_samples():
    draws = Draws(None, None, torch.arange(6.0).view(3, 2, 1), torch.arange(3.0))
    assert draws.rows(torch.tensor([2, 0])).u_action.tolist() == [2.0, 0.0]
