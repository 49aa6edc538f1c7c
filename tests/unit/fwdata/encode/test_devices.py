"""Which devices encode; several of them, batches and decoding ahead; and what they change in bits."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import toy_store, tree

import fwdata
from fwdata.encode import devices
from fwdata.encode.devices import compute_devices, visible
from fwdata.encode.latents import EncodeRequest, default_dtype, encode_latents
from fwdata.encode.vae.wan import LatentVae, distance_to_float32, load_vae, probe_clip, use_channels_last
from fwdata.errors import StaleCache, UsageError

torch.set_num_threads(1)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says that it has two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """torch has none, and the folder of device files is empty; returns that folder."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)
    monkeypatch.setattr(devices, "DRIVER_VERSION", tmp_path / "version")
    return tmp_path


@pytest.mark.parametrize(
    ("device", "chosen", "expected"),
    [
        ("auto", (), ("cuda:0", "cuda:1")),
        ("cuda", (), ("cuda:0", "cuda:1")),
        ("cuda:1", (), ("cuda:1",)),
        ("cpu", (), ("cpu",)),
        ("auto", ("1",), ("cuda:1",)),
        ("auto", ("0", "1"), ("cuda:0", "cuda:1")),
        ("auto", ("cpu", "cpu"), ("cpu", "cpu")),
    ],
)
def test_every_gpu_works_unless_some_are_named(gpus, device, chosen, expected):
    assert compute_devices(device, chosen) == expected


@pytest.mark.parametrize(
    ("device", "chosen", "message"),
    [
        ("gpu", (), "--device 'gpu': expected auto, cpu, cuda or cuda:N"),
        ("auto", ("0", "x"), "--devices 'x': expected numbers of GPUs such as 0,1"),
        ("auto", ("2",), "'cuda:2' was asked for, but torch sees 2 GPU"),
        ("cuda:7", (), "'cuda:7' was asked for, but torch sees 2 GPU"),
        ("auto", ("0", "cpu"), "make different bits; name one kind"),
    ],
)
def test_a_device_that_is_not_there_is_refused(gpus, device, chosen, message):
    with pytest.raises(UsageError, match=message):
        compute_devices(device, chosen)


def test_a_machine_without_a_gpu_uses_its_cpu(no_gpu):
    assert compute_devices() == ("cpu",)
    with pytest.raises(UsageError, match="torch sees no GPU on this machine"):
        compute_devices("cuda")


def test_a_gpu_that_torch_cannot_use_is_an_error_with_torchs_reason(no_gpu, monkeypatch):
    (no_gpu / "nvidia0").touch()
    (no_gpu / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13\n")

    def too_old(*args, **options):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update it.")

    monkeypatch.setattr(torch, "zeros", too_old)
    for ask in (
        lambda: compute_devices("auto"),
        lambda: compute_devices("cuda"),
        lambda: load_vae("tiny", device="cuda"),
    ):
        with pytest.raises(UsageError, match=r"driver 470\.57\.02\) .* cannot use: The NVIDIA driver on .* too old"):
            ask()
    assert compute_devices("cpu") == ("cpu",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert compute_devices("auto") == ("cpu",)


def test_a_worker_sees_its_own_gpu_alone(gpus, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible("cuda:1") == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa, GPU-bb")
    assert visible("cuda:1") == {"CUDA_VISIBLE_DEVICES": "GPU-bb"}
    assert visible("cpu") == {"CUDA_VISIBLE_DEVICES": ""}


def test_a_forward_is_waited_for_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch):
    """An event of the first GPU has passed long before the second one's latents are there."""
    current, marked = ["cuda:0"], []

    @contextmanager
    def device(name):
        current.append(str(name))
        yield
        current.pop()

    class Event:
        def __init__(self, kind, enable_timing):
            assert kind == "cuda"

        def record(self):
            marked.append(current[-1])

        def synchronize(self):
            """It has passed."""

        def elapsed_time(self, other):
            return 1.0

    empty, to = torch.empty, torch.Tensor.to
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **kwargs: empty(*shape, **kwargs))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    vae = load_vae("tiny")
    expected = vae.encode(probe_clip())
    vae.device = "cuda:1"
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: self if a == ("cuda:1",) else to(self, *a, **k))
    assert np.array_equal(vae.encode(probe_clip()), expected)
    assert marked == ["cuda:1", "cuda:1"]


def test_bfloat16_is_usual_on_a_gpu():
    assert (default_dtype("auto", "cuda:0"), default_dtype("auto", "cpu")) == ("bfloat16", "float32")
    assert default_dtype("float32", "cuda:0") == "float32"


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"devices": ("cpu", "cpu")}, {"workers": 2}, {"decoders": 1}])
def test_devices_workers_and_decoders_change_no_byte(tmp_path, monkeypatch, options):
    one = toy_store(tmp_path / "one", monkeypatch, {"a": [35], "b": [6]})
    two = toy_store(tmp_path / "two", monkeypatch, {"a": [35], "b": [6]})
    for path, how in ((one, {}), (two, options)):
        request = EncodeRequest(path, "tiny", stride=8, device="cpu", **how)
        report = encode_latents(request, lambda frames: None, lambda *values: None)
        assert (report.first, report.windows) == (41, 6)
        assert 0 < report.vae_seconds <= report.busy_seconds
    assert tree(one) == tree(two)


def encode(path: Path, batch: int, stride: int = 2, **options: object) -> None:
    request = EncodeRequest(path, "tiny", stride=stride, device="cpu", batch=batch, **options)  # type: ignore[arg-type]
    encode_latents(request, lambda frames: None, lambda *values: None)


@pytest.mark.slow
def test_batches_are_part_of_the_identity_and_close(tmp_path, monkeypatch):
    path = toy_store(tmp_path, monkeypatch, {"a": [7]})
    encode(path, 1)
    with pytest.raises(StaleCache, match="batch is None, asked for 3"):
        encode(path, 3)
    encode(path, 3, name="batched")
    store = fwdata.open(path)
    one, three = store.latents("default"), store.latents("batched")
    assert three.identity["batch"] == 3 and "batch" not in one.identity
    frames = np.arange(7)
    np.testing.assert_allclose(one.first(store.episodes[0], frames), three.first(store.episodes[0], frames), atol=5e-3)
    starts = one.starts(store.episodes[0])
    np.testing.assert_allclose(
        one.future(store.episodes[0], starts), three.future(store.episodes[0], starts), atol=5e-3
    )


@pytest.mark.slow
def test_batches_refine_and_continue_to_the_same_bytes(tmp_path, monkeypatch):
    """Neither the place of a clip in its forward nor what lies beside it changes its bits."""
    path = toy_store(tmp_path, monkeypatch, {"a": [7]})
    encode(path, 2, stride=4)
    encode(path, 2, stride=1)
    refined = tree(path)
    encode(path, 2, stride=1, replace=True)
    assert tree(path) == refined


def test_channels_last_computes_the_same_function():
    vae = load_vae("tiny")
    expected = vae.encode(probe_clip()).astype(np.float64)
    use_channels_last(vae.net)
    assert vae.net.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last_3d)
    found = vae.encode(probe_clip()).astype(np.float64)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-3


def test_the_distance_of_bfloat16_from_float32_is_measured():
    assert distance_to_float32(load_vae("tiny")) == 0
    assert 1e-4 < distance_to_float32(load_vae("tiny", dtype="bfloat16")) < 0.1


def test_a_gpu_cache_records_its_distance_once(tmp_path, monkeypatch):
    """Of the GPU there is no more than what the identity says; the VAE itself computes on the CPU."""
    path = toy_store(tmp_path, monkeypatch, {"a": [3]})
    plain = LatentVae.identity
    gpu = {"device": "A GPU", "memory_format": "channels_last_3d"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpu["device"])
    monkeypatch.setattr(LatentVae, "identity", lambda self: {**plain(self), **gpu})
    measured = iter([0.0031, 0.0032])
    monkeypatch.setattr("fwdata.encode.latents.distance_to_float32", lambda vae: next(measured))
    encode(path, 1, dtype="bfloat16")
    identity = fwdata.open(path).latents().identity["vae"]
    assert (identity["device"], identity["memory_format"]) == ("A GPU", "channels_last_3d")
    assert identity["distance_to_float32"] == 0.0031
    encode(path, 1)  # what was measured again would be another number, and another cache
    encode(path, 1, stride=1)
    assert fwdata.open(path).latents().identity["vae"] == identity
    gpu["device"] = "Another GPU"
    with pytest.raises(StaleCache, match=r"vae\.device is A GPU, asked for Another GPU"):
        encode(path, 1)
