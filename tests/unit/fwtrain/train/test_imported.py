"""Official checkpoints and lerobot folders as runs: the same actions, evaluated by the same command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_hub import FakeHub
from fake_store import FakeStore
from model_case import lively
from serving import server
from training import recipe

from fwdata.envs.base import Observation
from fwdata.errors import UsageError
from fwdata.manifest import load_manifest
from fwtrain.errors import RunMismatch
from fwtrain.infer.policy import Policy
from fwtrain.infer.predict import predict
from fwtrain.model import Denoising
from fwtrain.serve.server import background
from fwtrain.train.build import Sizes, sized_config
from fwtrain.train.folder import RunFolder
from fwtrain.train.imported import ImportRequest, import_policy

MANIFEST = load_manifest("robotwin-sample")
DEPLOY = "deploy={execute: 12, gripper_sign: [6]}"
STATE = np.linspace(-0.5, 0.5, 14, dtype=np.float32)
TOKENS = 24
ENCODERS = {"vae": "tiny-libero", "encoder": "tiny", "tokens": TOKENS}


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    """A folder with a small checkpoint in upstream's form and its statistics."""
    folder = tmp_path_factory.mktemp("official")
    sizes = Sizes(14, 14, MANIFEST.window, (48, 6, 4), (TOKENS, 64))
    weights = lively(sized_config(recipe(), sizes)).state_dict()
    proprio = {k.removeprefix("proprio_encoder."): v for k, v in weights.items() if k.startswith("proprio_encoder.")}
    mot = {k: v for k, v in weights.items() if not k.startswith("proprio_encoder.")}
    torch.save({"mot": mot, "proprio_encoder": proprio, "step": 7}, folder / "policy.pt")
    low = {"min": [-1.0] * 14, "q01": [-0.9] * 14, "mean": [0.0] * 14}
    high = {"max": [3.0] * 14, "q99": [2.9] * 14, "std": [0.5] * 14}
    entries = {f"global_{name}": values for name, values in {**low, **high}.items()}
    stats = {what: {"default": entries} for what in ("state", "action")}
    (folder / "dataset_stats.json").write_text(json.dumps(stats))
    return folder


@pytest.fixture(scope="module")
def imported(official: Path) -> Path:
    chosen = recipe(DEPLOY, "model.action_shift=5")
    asked = ImportRequest(
        str(official / "policy.pt"), official / "run", chosen, MANIFEST, official / "dataset_stats.json", **ENCODERS
    )
    assert import_policy(asked).recipe.model.action_shift == 5
    return official / "run"


def seen(shade: int = 0) -> Observation:
    random = np.random.default_rng(shade)
    cameras = {name: random.integers(0, 256, (48, 64, 3), np.uint8) for name in MANIFEST.stitch.cameras}
    return Observation(cameras, STATE, "lift the block")


def test_an_official_checkpoint_acts_with_its_own_weights_shift_statistics_and_rules(official: Path, imported: Path):
    policy = Policy.load(imported, device="cpu")
    saved = torch.load(official / "policy.pt", weights_only=True)["mot"]
    loaded = policy.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in saved.items())
    assert policy.sampling.action_shift == 5 and policy.execute == 12 and policy.gripper_sign == (6,)
    mode = MANIFEST.normalisation.mode
    expected = {"minmax": (2 / 4, -0.5), "quantile": (2 / 3.8, -1 + 0.9 * 2 / 3.8), "zscore": (2.0, 0.0)}[mode]
    assert policy.info.state.scale[0] == pytest.approx(expected[0])
    assert policy.info.action.offset[0] == pytest.approx(expected[1], abs=1e-6)
    chunk = policy.commands(policy.act_batch([seen()], [0])[0])
    assert chunk.shape == (32, 14) and set(np.unique(chunk[:, 6])) <= {-1.0, 0.0, 1.0}


@pytest.mark.slow
def test_what_is_imported_is_evaluated_by_the_same_command(imported: Path, tmp_path: Path, call):
    """Alone and through a server of it, with equal outcomes."""
    asked = ("eval", imported, "--env", "fake_benchmark:BENCHMARK", "--suite", "one", "--tasks", "drop", "--trials", 2)
    code, out, err = call(*asked, "--steps", 2, "--out", tmp_path / "alone", "--device", "cpu", "--json")
    alone = json.loads(out)
    assert (code, err) == (0, "") and alone["trials"] == 2
    assert alone["policy"]["sampling"]["action_shift"] == 5 and alone["policy"]["gripper_sign"] == [6]
    with background(server(Policy.load(imported, device="cpu"))) as (host, port):
        code, out, err = call(*asked, "--server", f"{host}:{port}", "--out", tmp_path / "served", "--json")
    assert code == 0, err
    assert json.loads(out)["policy"]["sampling"]["action_shift"] == 5
    for trial in (0, 1):
        one, two = (
            json.loads((tmp_path / name / "trials" / "fake_one" / "drop" / f"{trial}.json").read_text())
            for name in ("alone", "served")
        )
        assert one["actions"] == two["actions"] and one["success"] == two["success"]


@pytest.mark.slow  # imports lerobot
@pytest.mark.filterwarnings("ignore:CUDA is not available", "ignore:User provided device_type")
def test_a_lerobot_folder_brings_its_own_rules(imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from fwtrain.export import export_lerobot

    export_lerobot(imported, tmp_path / "lerobot", any_encoder=True)
    again = ImportRequest(str(tmp_path / "lerobot"), tmp_path / "run", recipe(), MANIFEST, **ENCODERS)
    assert import_policy(again).recipe.model.action_shift == 5
    hub = FakeHub(monkeypatch, tmp_path / "lerobot", tmp_path / "cache", "someone/policy")
    fetched = import_policy(replace(again, source="someone/policy", out=tmp_path / "fetched"))
    assert fetched.recipe.model.action_shift == 5 and "fwtrain_export.json" not in hub.asked
    ours, theirs = (Policy.load(path, device="cpu") for path in (imported, tmp_path / "run"))
    assert theirs.execute == 12 and theirs.gripper_sign == (6,)
    one, two = (policy.act_batch([seen(1)], [3])[0] for policy in (ours, theirs))
    assert two == pytest.approx(one, abs=1e-4)
    config = tmp_path / "lerobot" / "config.json"
    changed = {**json.loads(config.read_text()), "sigma_shift": 2.0, "num_inference_steps": 1}
    config.write_text(json.dumps(changed))
    done = import_policy(ImportRequest(again.source, tmp_path / "other", recipe(), MANIFEST, **ENCODERS))
    assert (
        done.recipe.model.action_shift == 5
        and "lerobot samples it at action shift 2, it was trained w" in done.notes[0]
        and "with 1 denoising steps" in done.notes[1]
    )


def test_an_imported_run_predicts_on_a_store_of_its_encoders(imported: Path):
    """It names no caches: those of the store are compared by what they were made with."""
    info = RunFolder(imported).info()
    store = FakeStore()
    store.metadata = {"manifest": MANIFEST.model_dump(mode="json")}
    store.cache.window, store.cache.identity = MANIFEST.window, dict(info.latents.identity)
    rows = np.zeros((TOKENS, 64), np.float16)
    text = SimpleNamespace(
        fingerprint="store's", identity=dict(info.text.identity), max_tokens=TOKENS, embedding=lambda prompt: rows
    )
    store.text = lambda name=None: text
    found = predict(imported, store, 1, 2, device="cpu", sampling=Denoising(steps=2))
    assert found.action.shape == (32, 14) and found.mae > 0
    text.max_tokens = TOKENS + 1
    with pytest.raises(RunMismatch, match=f"token rows {TOKENS}, this store has {TOKENS + 1}"):
        predict(imported, store, 1, 2, device="cpu")
    store.cache.identity = {"vae": {"weights": "0" * 64}}
    with pytest.raises(RunMismatch, match="latents of VAE weights"):
        predict(imported, store, 1, 2, device="cpu")


def test_what_cannot_be_imported_is_refused(official: Path, tmp_path: Path):
    source, stats = str(official / "policy.pt"), official / "dataset_stats.json"

    def refused(words: str, shift: str = "model.action_shift=5", **changes) -> None:
        asked = {"source": source, "out": tmp_path / "run", "stats": stats, **ENCODERS, **changes}
        with pytest.raises(UsageError, match=words):
            import_policy(ImportRequest(recipe=recipe(shift), manifest=MANIFEST, **asked))
        assert not (tmp_path / "run").exists()

    refused("give its normalisation with --stats", stats=None)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "recipe.yaml").write_text("{}")
    refused("is a run folder already", stats=None, source=str(tmp_path / "own"))
    refused("nothing says which action shift policy.pt was trained with", shift="model.action_shift=null")
    refused("cannot be read", stats=tmp_path / "absent.json")
    (tmp_path / "odd.json").write_text("{}")
    refused("expected an official dataset_stats.json", stats=tmp_path / "odd.json")
    refused("no VAE 'tinny'", vae="tinny")
    with pytest.raises(UsageError, match="exists already"):
        import_policy(ImportRequest(source, official, recipe(), MANIFEST, stats, **ENCODERS))


def test_what_a_file_says_of_its_training_is_kept_or_refused(official: Path, tmp_path: Path):
    """Variant, shifts and token rows: a run that was exported and comes back acts as before."""
    data = torch.load(official / "policy.pt", weights_only=True)
    about = {"variant": "optional-idm", "video_shift": 3.0, "action_shift": 2.0, "tokens": TOKENS}
    torch.save({**data, "fwtrain": about}, tmp_path / "own.pt")

    def brought(*changes: str, tokens: int | None = None, out: str = "run"):
        encoders = {**ENCODERS, "tokens": tokens}
        return import_policy(
            ImportRequest(
                str(tmp_path / "own.pt"), tmp_path / out, recipe("model.action_shift=null", *changes), MANIFEST,
                official / "dataset_stats.json", **encoders,
            )
        )  # fmt: skip

    with pytest.raises(
        UsageError, match=r"own.pt was trained with video shift 3, the recipe has 5: pass --set model.vid"
    ):
        brought()
    with pytest.raises(
        UsageError, match=r"as variant optional-idm, the recipe's is joint: pass --set model.variant=opt"
    ):
        brought("model.video_shift=3", "model.variant=joint")
    with pytest.raises(UsageError, match=f"was trained with {TOKENS} token rows of a prompt, --tokens asks for 128"):
        brought("model.video_shift=3", tokens=128)
    assert not (tmp_path / "run").exists()
    done = brought("model.video_shift=3")
    assert done.notes == (
        "own.pt was trained as variant optional-idm; as fastwam it is sampled in mode first-frame only",
    )
    info = RunFolder(tmp_path / "run").info()
    assert info.text_shape[0] == info.model.context_len == TOKENS and info.model.schedule.action_shift == 2
    (note,) = brought("model.video_shift=3", "model.variant=optional-idm", "model.action_shift=5", out="other").notes
    assert note.startswith("model.action_shift is 5, own.pt was trained with 2 (own.pt says so)")
