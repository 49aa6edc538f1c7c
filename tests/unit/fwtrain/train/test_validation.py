"""Validation, its pictures, the trackers and the run report, on a store in memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from fake_store import FakeStore
from training import recipe, run

from fwdata.errors import FwdataError, UsageError
from fwtrain.data import open_source
from fwtrain.train import images as pictures
from fwtrain.train import validate
from fwtrain.train.build import build_model, model_config
from fwtrain.train.folder import RunFolder
from fwtrain.train.logs import TensorBoard, read_images, read_log
from fwtrain.train.report import write_run_report
from fwtrain.train.validate import ValidationResult, Validator

HTML = "<script>alert('x')</script> & co"


def validated(*overrides: str, store: FakeStore | None = None, model_seed: int = 0) -> ValidationResult:
    """Validation of an untrained model."""
    chosen = recipe("validation.windows=12", *overrides)
    source = open_source(store or FakeStore(), chosen)
    validator = Validator.of(source, chosen)
    assert validator is not None
    model = build_model(model_config(chosen, source), model_seed)
    before = torch.get_rng_state()
    result = validator.run(model)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert result.values() == validator.run(model).values()
    return result


@pytest.mark.parametrize("variant", ["fastwam", "joint", "idm"])
def test_the_video_loss_is_the_mean_over_its_horizons(variant: str):
    result = validated(f"model.variant={variant}", "model.lambda_video=0.5", store=FakeStore((40, 400)))
    assert result.video_by_horizon is not None and result.video_by_horizon.shape == (2,)
    assert (result.video_by_horizon > 0).all() and result.video_by_horizon[0] != result.video_by_horizon[1]
    share = 11 / 12  # the last window's future lies past the end: it counts as 0 in the loss, and not by horizon
    assert result.video == pytest.approx(0.5 * share * result.video_by_horizon.mean(), rel=1e-5)
    assert result.loss == pytest.approx(result.video + result.action)
    assert result.values()["video.2"] == result.video_by_horizon[1]


def test_padded_future_frames_do_not_count():
    store = FakeStore((40, 12))
    result = validated(store=store)
    assert result.video_by_horizon is not None
    assert result.video_by_horizon[0] > 0 == result.video_by_horizon[1]  # frames 20.. of a window lie past the end


def test_without_a_video_loss_there_is_no_horizon_and_no_future_is_read():
    for overrides in (["model.variant=no-video"], ["model.lambda_video=0"]):
        store = FakeStore()
        result = validated(*overrides, store=store)
        assert result.video_by_horizon is None and result.video == 0 and result.loss == result.action
        assert store.cache.future_calls == 0


def test_every_variant_is_validated_on_the_same_windows_with_future_latents():
    chosen = {}
    for variant in ("fastwam", "joint", "idm", "no-video"):
        r = recipe(f"model.variant={variant}", "validation.windows=7")
        validator = Validator.of(open_source(FakeStore((40, 60), stride=4), r), r)
        assert validator is not None
        windows = np.concatenate([plan.windows for plan in validator.plans])
        chosen[variant] = validator.reader.index.start[windows].tolist()
    assert len({tuple(starts) for starts in chosen.values()}) == 1
    assert all(start % 4 == 0 for start in chosen["fastwam"])


def test_the_score_is_the_action_error_in_normalised_units():
    result = validated()
    chosen = recipe()
    source = open_source(FakeStore(), chosen)
    error = (result.action_error.by_dimension * source.action.scale).mean()
    assert result.score == pytest.approx(error, rel=1e-4)
    assert result.score != pytest.approx(result.action_error.mae, rel=1e-2)


def test_validation_is_a_function_of_weights_and_seed():
    assert validated().values() == validated().values()
    assert validated().score != validated(model_seed=1).score
    assert validated().loss != validated("seed=1").loss


class FakeDecoder:
    """Pictures whose brightness follows the latents; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def decode(self, latents: np.ndarray) -> np.ndarray:
        self.calls += 1
        assert latents.shape == (48, 3, 6, 4)
        level = np.clip(np.repeat(latents.mean((0, 2, 3)), [1, 4, 4]) * 50 + 120, 0, 255)
        return np.broadcast_to(level[:, None, None, None], (9, 96, 64, 3)).astype(np.uint8)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> FakeDecoder:
    found = FakeDecoder()
    monkeypatch.setattr(pictures, "cache_vae", lambda *args, **options: found)
    return found


def test_pictures_of_predicted_futures_reach_files_log_tensorboard_and_report(
    tmp_path: Path, decoder: FakeDecoder, monkeypatch: pytest.MonkeyPatch
):
    images: list[tuple[str, tuple[int, ...], int]] = []
    monkeypatch.setattr(
        TensorBoard,
        "pictures",
        lambda self, step, found: images.extend((p.name, p.pixels().shape, step) for p in found),
    )
    store = FakeStore(instructions=(HTML,))
    run(tmp_path, "validation.pictures=2", "tensorboard=true", store=store)
    shown = read_images(tmp_path)
    assert [(step, path.name) for step, path, _ in shown] == [
        (3, "future_0.png"), (3, "future_1.png"), (6, "future_0.png"), (6, "future_1.png"),
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for _, path, _ in shown)
    assert "dB PSNR" in shown[0][2] and HTML in shown[0][2]
    assert decoder.calls == 8
    assert [(name, step) for name, _, step in images] == [(path.stem, step) for step, path, _ in shown]
    assert images[0][1][2] == 3
    page = (tmp_path / "report.html").read_text()
    root = ElementTree.fromstring(page)
    assert page.count("data:image/png;base64,") == 4 and not list(root.iter("script"))
    text = "\n".join(root.itertext())
    assert HTML in text and "video loss, latent frame 2" in text and "joint13" in text


@pytest.mark.slow
def test_pictures_change_no_weight_and_a_resumed_run_makes_the_same(tmp_path: Path, decoder: FakeDecoder):
    run(tmp_path / "plain")
    run(tmp_path / "whole", "validation.pictures=1")
    out = tmp_path / "stopped"
    run(out, "validation.pictures=1", stop_after=3)
    late = out / "pictures" / "step-00000005" / "future_0.png"  # as if a later checkpoint had been lost
    late.parent.mkdir(parents=True)
    late.write_bytes(b"late")
    run(out, "validation.pictures=1")
    assert not late.exists()
    assert [r["loss"] for r in read_log(out)] == [r["loss"] for r in read_log(tmp_path / "plain")]
    one, other = read_images(tmp_path / "whole"), read_images(out)
    assert [(s, p.read_bytes(), c) for s, p, c in one] == [(s, p.read_bytes(), c) for s, p, c in other]


def test_a_run_without_video_loss_or_vae_says_why_it_has_no_pictures(tmp_path: Path):
    notes: list[str] = []
    run(tmp_path / "a", "validation.pictures=2", "model.variant=no-video", note=notes.append)
    store = FakeStore()
    store.cache.vae, store.cache.identity = "nowhere", {"vae": {"compute_dtype": "float32", "weights": "?"}}
    run(tmp_path / "b", "validation.pictures=2", note=notes.append, store=store)
    found = [note for note in notes if note.startswith("no images")]
    assert len(found) == 2  # once per run, not once per validation
    assert "no video loss" in found[0] and "nowhere" in found[1]
    assert not (tmp_path / "a" / "pictures").exists()


def test_the_report_of_an_unfinished_run_and_of_none(tmp_path: Path):
    run(tmp_path / "a", stop_after=0)
    assert "Nothing was logged yet" in (tmp_path / "a" / "report.html").read_text()
    with pytest.raises(UsageError, match="not a run folder"):
        write_run_report(RunFolder(tmp_path / "b"))


class FakeTracker(SimpleNamespace):
    """A module that speaks like wandb and remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.finished = 0
        self.Image = lambda pixels, caption: (pixels.shape, caption)

    def init(self, **options: Any) -> None:
        self.started.append(options)

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        assert (step is None) == ("step" in values)
        self.logged.append({"step": step, **values})

    def finish(self) -> None:
        print("a tracker that talks")
        self.finished += 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_recipe_numbers_and_pictures_and_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], decoder: FakeDecoder, name: str
):
    fake = FakeTracker()
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    options = (f"trackers=[{name}]", "validation.pictures=1")
    run(tmp_path, *options, stop_after=3)
    run(tmp_path, *options)
    run(tmp_path, *options)  # complete: nothing more to tell
    assert fake.finished == len(fake.started) == 2
    assert capsys.readouterr().out == ""  # stdout is the command's result
    key = "id" if name == "wandb" else "name"
    assert fake.started[0][key] == fake.started[1][key]
    assert fake.started[0]["config"]["optim.lr"] == 1e-3
    losses = [point["train/loss"] for point in fake.logged if "train/loss" in point]
    assert losses == [row["loss"] for row in read_log(tmp_path)]
    assert [point["step"] for point in fake.logged if "val/score" in point] == [3, 6]
    assert [point["step"] for point in fake.logged if "val/future_0" in point] == [3, 6]
    run(tmp_path, *options, fresh=True)
    assert fake.started[2][key] != fake.started[0][key]
    assert "secret-key" not in json.dumps(fake.started, default=str) + (tmp_path / "trackers.json").read_text()


def test_a_tracker_that_is_absent_or_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"wandb is not installed; .*install .*\[track\]"):
        run(tmp_path / "a", "trackers=[wandb]")
    fake = FakeTracker()
    monkeypatch.setattr(fake, "init", lambda **options: (_ for _ in ()).throw(RuntimeError("no API key\nlong text")))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(FwdataError, match=r"wandb did not start \(no API key\); .*WANDB_MODE=offline"):
        run(tmp_path / "b", "trackers=[wandb]")
    with pytest.raises(UsageError, match="trackers"):
        recipe("trackers=[mlflow]")


def test_a_tracker_of_a_plug_in_without_a_method_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Before the first step, not when the run is over."""
    (tmp_path / "trackers").mkdir()
    text = "class Half:\n    def write(self, *_): pass\ndef open_sink(*_): return Half()\n"
    (tmp_path / "trackers" / "half.py").write_text(text)
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path))
    with pytest.raises(UsageError, match="tracker 'half': what open_sink returns lacks pictures and close"):
        run(tmp_path / "a", "trackers=[half]")


def test_a_gpu_that_runs_out_of_memory_over_an_image_goes_on_without(
    tmp_path: Path, decoder: FakeDecoder, monkeypatch: pytest.MonkeyPatch
):
    def full(self: FakeDecoder, latents: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(type(decoder), "decode", full)
    notes: list[str] = []
    outcome = run(tmp_path, "validation.pictures=1", note=notes.append)
    assert outcome.finished
    assert "no images: decoding them ran out of GPU memory (CUDA out of memory)" in notes


@pytest.mark.parametrize("variant", ["joint", "optional-idm"])
def test_windows_validated_in_parts_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch, variant: str):
    overrides = (f"model.variant={variant}", "optim.batch_size=5")
    whole, cuts = validated(*overrides), validate._cuts
    monkeypatch.setattr(validate, "_cuts", lambda count, most: cuts(count, 2))
    parts = validated(*overrides)
    assert parts.values() == pytest.approx(whole.values(), rel=1e-5)
    assert cuts(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert cuts(5, None) == [slice(0, 5)]
