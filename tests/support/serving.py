"""A small policy with random weights and fake encoders, and servers and clients of it, for tests."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from fake_store import CHANNELS, HEIGHT, WIDTH, FakeStore, FakeText
from training import recipe
from websockets.sync.client import connect

from fwtrain.data import open_source
from fwtrain.infer.policy import Policy
from fwtrain.model import FastWAM
from fwtrain.recipe import DeployRecipe
from fwtrain.serve.server import PolicyServer
from fwtrain.serve.wire import pack, unpack
from fwtrain.train.build import build_model, model_config
from fwtrain.train.folder import RunInfo

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

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
            self.gate.wait(120)
        ramp = np.linspace(-1, 1, CHANNELS * HEIGHT * WIDTH).reshape(CHANNELS, 1, HEIGHT, WIDTH)
        return (ramp * frame[:48].mean() / 255 - frame[48:].mean() / 255).astype(np.float16)


def small_policy(
    vae: Any = None, deploy: DeployRecipe | None = None, text: Any = None, store: FakeStore | None = None
) -> Policy:
    store = store or FakeStore()
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


def server(policy: Policy | None = None, **options: Any) -> PolicyServer:
    return PolicyServer(policy or small_policy(), port=0, steps=2, **options)


def direct(policy: Policy, scene: int) -> np.ndarray:
    """What the policy itself answers to `observation(scene)`."""
    return policy.commands(policy.act(pictures(scene), STATE, "lift the block", seed=scene, steps=2))


def raw(host: str, port: int, **options: Any):
    """A plain websocket, its metadata read."""
    opened = connect(f"ws://{host}:{port}", compression=None, max_size=None, proxy=None, **options)
    unpack(opened.recv(10))
    return opened


def main() -> None:
    """Serve the small policy on a free port until SIGTERM, as `fwtrain serve` does."""
    import asyncio

    import torch

    from fwtrain.cli.serve import _until_signal

    torch.set_num_threads(1)
    server = PolicyServer(small_policy(), port=0, steps=2)
    server.warm_up()
    asyncio.run(_until_signal(server, "a small policy"))


if __name__ == "__main__":
    main()


def mutations(count: int, seed: int = 0) -> list[bytes]:
    """A good message with bytes flipped, cut, doubled, swapped or overwritten."""
    good, random = pack(observation()), np.random.default_rng(seed)
    found = []
    for _ in range(count):
        data = bytearray(good)
        for _ in range(random.integers(1, 6)):
            # most of a message is pixels: aim at the structure between them
            at = int(
                random.choice([random.integers(len(data)), random.integers(80), len(data) - random.integers(1, 200)])
            )
            match random.integers(5):
                case 0:
                    data[at] ^= 1 << int(random.integers(8))
                case 1:
                    del data[at : at + int(random.integers(1, 40))]
                case 2:
                    data[at:at] = random.bytes(int(random.integers(1, 40)))
                case 3:
                    data[at : at + 8] = data[: int(random.integers(9))]
                case _:
                    data[at] = int(random.choice([0xC1, 0xDD, 0xDF, 0xC6, 0xDB, 0x9F, 0xFF]))
            data = data or bytearray(b"\xc1")
        found.append(bytes(data))
    return found
