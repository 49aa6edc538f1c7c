"""A small policy with random weights and fake encoders, and a server of it, for tests."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from fake_store import CHANNELS, HEIGHT, WIDTH, FakeStore, FakeText
from test_train import recipe

from fwtrain.data import open_source
from fwtrain.model import FastWAM
from fwtrain.policy import Policy
from fwtrain.recipe import DeployRecipe
from fwtrain.train.build import build_model, model_config
from fwtrain.train.folder import RunInfo

CAMERAS = FakeStore.cameras
STATE = np.linspace(-0.5, 0.5, 14, dtype=np.float32)


class PictureVae:
    """Latents that follow the picture; waits for `gate` where one is given."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.entered = threading.Event()

    def encode_first(self, frame: np.ndarray) -> np.ndarray:
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(20)
        ramp = np.linspace(-1, 1, CHANNELS * HEIGHT * WIDTH).reshape(CHANNELS, 1, HEIGHT, WIDTH)
        return (ramp * frame[:48].mean() / 255 - frame[48:].mean() / 255).astype(np.float16)


def small_policy(vae: Any = None, deploy: DeployRecipe | None = None, text: Any = None) -> Policy:
    store = FakeStore()
    store.source = "robotwin"  # the sample world's robot
    source = open_source(store, recipe())
    config = model_config(recipe(), source)
    model: FastWAM = build_model(config, seed=3)
    return Policy(model, RunInfo.of(source, config), vae=vae or PictureVae(), text=text or FakeText(), deploy=deploy)


def pictures(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.integers(0, 256, (48, 64, 3), np.uint8) for name in CAMERAS}


def observation(scene: int = 0, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {f"observation/{name}": picture for name, picture in pictures(scene).items()}
    return {**found, "observation/state": STATE, "prompt": "lift the block", "seed": scene, **changes}


def main() -> None:
    """Serve the small policy on a free port until SIGTERM, as `fwtrain serve` does."""
    import asyncio

    import torch

    from fwtrain.cli.serve import _until_signal
    from fwtrain.serve.server import PolicyServer

    torch.set_num_threads(1)
    server = PolicyServer(small_policy(), port=0, steps=2)
    server.warm_up()
    asyncio.run(_until_signal(server, "a small policy"))


if __name__ == "__main__":
    main()
