"""vla-eval's protocol on the same port: benchmarks of AllenAI's harness ask this server, without its package.

    ws://HOST:PORT/vla-eval          any benchmark
    ws://HOST:PORT/vla-eval/SUITE    a LIBERO suite, with its limit of steps

Binary messages are msgpack maps {"type", "payload", "seq", "timestamp"}; the client speaks first.

    hello          {"benchmark": "module:Class", ..}      answered by hello {"observation_params", ..}
    episode_start  {"task": {"suite", ..}}                no answer; forgets what is left of the last chunk
    observation    {"images", "states", ..}               answered by action {"actions": float32 [a]}, same seq
    episode_end    {"metrics", ..}                        no answer

A mistake is answered by error {"error": sentence}, and the connection stays usable. The harness sends an observation
per step and wants one action; images are decoded only where a chunk begins. Source: vla-eval 0.8.0, protocol version 1.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fwdata.errors import FwdataError, UsageError
from fwdata.normalise import Float32
from fwtrain.serve.observations import MAX_SIDE, ObservationReader, Request
from fwtrain.serve.wire import pack, unpack
from fwtrain.train.folder import RunInfo

PATH = "/vla-eval"
PROTOCOL = 1

CAMERAS = {"image": "agentview", "wrist_image": "wrist"}
"""The harness's names of LIBERO's cameras; others keep theirs."""
STATES = ("states", "joint_state", "state")
"""Keys of the state vector, the first found counts."""

LIBERO_LIMITS = {
    **dict.fromkeys(("libero_spatial", "libero_object", "libero_goal"), 400),
    **dict.fromkeys(("libero_10", "libero_90"), 700),
}
"""Steps of an episode in the official evaluation; the harness's own limits are 220 .. 520."""
LIBERO = {"send_wrist_image": True, "send_state": True, "num_steps_wait": 30}
LIBERO_MORE = {"quat_no_antipodal": True, "env_seed": 42}
LIBERO_STATE, LIBERO_ROTATION = 8, (3, 4, 5)
"""Width of LIBERO's state and the place of its axis-angle, for imported runs: official statistics name no dimension."""
LIBERO_WIDTH, LIBERO_GRIPPER = 7, 6
"""Width of LIBERO's action and the place of its gripper, which the harness sends on as -1 open where below 0, else +1
closed."""
FOLDED = ("LIBEROProBenchmark", "LIBEROMemBenchmark")
"""LIBERO benchmarks that cannot be asked to leave the axis-angle unfolded."""


@dataclass(frozen=True)
class HarnessProtocol:
    """What a benchmark of the harness is asked to do, by the class that its hello names."""

    benchmark: str
    """Class name; empty where the client named none."""
    suite: str | None = None
    """LIBERO suite of the connection's path."""
    execute: int = 1
    """Actions of a chunk."""

    @property
    def params(self) -> dict[str, object]:
        """Parameters that the harness merges into the benchmark's; those of its own configuration win."""
        if self.benchmark == "RoboTwinBenchmark":
            return {"instruction_type": "unseen", "render_every": self.execute}
        if not self.benchmark.startswith("LIBERO"):
            return {}
        asked: dict[str, object] = (
            dict(LIBERO) if self.benchmark in FOLDED else {**LIBERO, **LIBERO_MORE, "max_steps": self.limit}
        )
        return asked if self.suite is None else {**asked, "suite": self.suite}

    @property
    def libero(self) -> bool:
        """Whether LIBERO takes the actions."""
        return self.benchmark.startswith("LIBERO") or self.suite is not None

    @property
    def limit(self) -> int:
        """LIBERO: steps of an episode."""
        return LIBERO_LIMITS.get(self.suite or "", 400)

    def check_task(self, suite: object) -> None:
        """UsageError for an episode of a suite with another limit than the benchmark was asked for."""
        if "max_steps" in self.params and LIBERO_LIMITS.get(str(suite), self.limit) != self.limit:
            raise UsageError(
                f"episodes of {suite} have {LIBERO_LIMITS[str(suite)]} steps in the official evaluation, "
                f"this connection asked for {self.limit}: connect to {PATH}/{suite}"
            )


def is_harness(path: str) -> bool:
    """Whether a connection's path is vla-eval's."""
    return path == PATH or path.startswith(f"{PATH}/")


def suite_of(path: str) -> str | None:
    """The LIBERO suite of a connection's path. UsageError for one that is not known."""
    suite = path.removeprefix(PATH).strip("/")
    if suite and suite not in LIBERO_LIMITS:
        raise UsageError(f"{suite[:40]!r} is not a LIBERO suite; known: {', '.join(LIBERO_LIMITS)}")
    return suite or None


@dataclass(frozen=True)
class ServedAnswer:
    """What one message led to."""

    data: bytes | str | None = None
    """The message to send; None where the protocol has no answer."""
    asked: bool = False
    """Whether the policy was asked; an action left of the last chunk costs nothing."""
    failed: bool = False
    """Whether the answer is an error."""


@dataclass
class HarnessSession:
    """One connection of the harness."""

    info: RunInfo
    """What the run was made from."""
    reader: ObservationReader
    """Reads the observations."""
    act: Callable[[Request], Awaitable[Float32]]
    """float32 [n, a] for a request, as the robot takes them."""
    execute: int
    """Actions of a chunk that are sent, one per message."""
    suite: str | None = None
    """Benchmark suite that the client runs, from its URL; None: not given."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the hello says of the policy; the harness keeps it with its results."""
    _protocol: HarnessProtocol = field(init=False)
    _queue: deque[Float32] = field(default_factory=deque, init=False)
    _refusal: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._protocol = HarnessProtocol("", self.suite, self.execute)

    async def answer(self, message: str | bytes) -> ServedAnswer:
        """The answer to one message."""
        seq = 0
        try:
            kind, payload, seq = _read(message)
            if kind == "hello":
                return ServedAnswer(_packed("hello", self._hello(payload), seq))
            if kind == "observation":
                asked = not self._queue
                return ServedAnswer(_packed("action", {"actions": await self._action(payload)}, seq), asked)
            if kind in ("episode_start", "episode_end"):
                self._begin(payload if kind == "episode_start" else {})
                return ServedAnswer()
            raise UsageError(f"message type {str(kind)[:40]!r} is unknown")
        except FwdataError as error:
            return ServedAnswer(_packed("error", {"error": str(error)}, seq), failed=True)

    def _hello(self, payload: Mapping[Any, Any]) -> dict[str, object]:
        version = payload.get("protocol_version", PROTOCOL)
        if version != PROTOCOL:
            raise UsageError(f"the harness speaks protocol version {version}, this server {PROTOCOL} (vla-eval 0.8)")
        name = str(payload.get("benchmark") or "").rpartition(":")[2]
        self._protocol = HarnessProtocol(name, self.suite, self.execute)
        return {
            "protocol_version": PROTOCOL,
            "model_server": "fwtrain serve",
            "observation_params": self._protocol.params,
            "policy": dict(self.about),
        }

    def _begin(self, payload: Mapping[Any, Any]) -> None:
        """An episode starts or is over. What is wrong is said at the first observation, which is waited for."""
        self._queue.clear()
        self._refusal = None
        task = payload.get("task")
        if isinstance(task, Mapping):
            try:
                self._protocol.check_task(task.get("suite"))
            except UsageError as error:
                self._refusal = str(error)

    async def _action(self, payload: Mapping[Any, Any]) -> Float32:
        """float32 [a]: the next of the chunk, which is asked for where none is left."""
        if self._refusal is not None:
            raise UsageError(self._refusal)
        if not self._queue:
            chunk = await self.act(self.reader.read(self._translated(payload)))
            self._queue.extend(self._commands(chunk[: self.execute]))
        return self._queue.popleft()

    def _commands(self, chunk: Float32) -> Float32:
        """float32 [n, a] as the benchmark takes them: LIBERO's gripper by the official sign(1 - 2 g), as in
        `fwtrain eval --env libero`, where the run's recipe has no rule for it."""
        signed = LIBERO_GRIPPER in self.about.get("gripper_sign", ())
        if signed or not self._protocol.libero or chunk.shape[1] != LIBERO_WIDTH:
            return chunk
        sent = chunk.copy()
        sent[:, LIBERO_GRIPPER] = np.sign(1 - 2 * sent[:, LIBERO_GRIPPER])
        return sent

    def _translated(self, payload: Mapping[Any, Any]) -> dict[str, object]:
        """The observation in the keys of `fwtrain.serve`."""
        images = payload.get("images")
        if not isinstance(images, Mapping):
            raise UsageError("the observation has no images, and no action of the last chunk is left")
        cameras = self.info.manifest.stitch.cameras
        chosen = {name: name if name in images else CAMERAS.get(name, name) for name in cameras}
        found: dict[str, object] = {
            "images": {name: _decoded(images[key], key) for name, key in chosen.items() if key in images},
            "prompt": payload.get("task_description"),
        }
        for key in STATES:
            if key in payload:
                found["state"] = self._unfolded(payload[key])
                break
        return found

    def _unfolded(self, state: Any) -> Any:
        """[Ds] with the rotation as the run was trained on it.

        A rotation by v is one by v (1 - 2 pi / |v|), too, and the gripper points down, where |v| is near pi: benchmarks
        that fold to |v| <= pi flip the vector's sign at random. The one nearer the centre of the run's states counts.
        """
        names = self.info.state.names
        axes = [i for i, name in enumerate(names) if "axis_angle" in name]
        if not axes and self.info.source == "libero" and len(names) == LIBERO_STATE:
            axes = list(LIBERO_ROTATION)
        shaped = isinstance(state, np.ndarray) and state.shape == (len(names),)
        if self._protocol.benchmark not in FOLDED or len(axes) != 3 or not shaped:
            return state
        scale, offset = (
            np.asarray(values, np.float64)[axes] for values in (self.info.state.scale, self.info.state.offset)
        )
        vector, centre = state[axes].astype(np.float64), -offset / scale
        angle = float(np.linalg.norm(vector))
        if angle == 0:
            return state
        other = vector * (1 - 2 * np.pi / angle)
        nearer = min((vector, other), key=lambda v: float(np.linalg.norm(v - centre)))
        found = state.astype(np.float32)
        found[axes] = nearer
        return found


def _read(message: str | bytes) -> tuple[object, Mapping[Any, Any], int]:
    """(type, payload, seq) of a message."""
    if isinstance(message, str):
        raise UsageError("a message of vla-eval is binary (msgpack), found text")
    data = unpack(message, text_keys=True)
    if not isinstance(data, dict):
        raise UsageError(f"a message of vla-eval is a map, found {type(data).__name__}")
    payload, seq = data.get("payload"), data.get("seq")
    if not isinstance(payload, dict) or type(seq) is not int:
        raise UsageError("a message of vla-eval needs type, payload (a map) and seq (a whole number)")
    return data.get("type"), payload, seq


def _packed(kind: str, payload: Mapping[str, Any], seq: int) -> bytes:
    message = {"type": kind, "payload": dict(payload), "seq": seq, "timestamp": time.time()}
    return pack(message, text_keys=True)


def _decoded(value: Any, name: str) -> Any:
    """uint8 [H, W, 3] of an encoded image; arrays as they are. UsageError for one that is damaged, large or not RGB."""
    if not isinstance(value, Mapping) or "__image__" not in value:
        return value
    form, data, shape = value.get("format"), value.get("data"), value.get("shape")
    if not isinstance(data, bytes) or not isinstance(shape, list) or len(shape) != 3 or shape[2] != 3:
        raise UsageError(f"images.{name} must be an encoded image [H, W, 3], found shape {str(shape)[:40]}")
    if not all(type(size) is int and 0 < size <= MAX_SIDE for size in shape):
        raise UsageError(f"images.{name} has shape {str(shape)[:40]}; a side has at most {MAX_SIDE} pixels")
    if form == "raw":
        if len(data) != shape[0] * shape[1] * 3:
            raise UsageError(f"images.{name} of shape {shape} cannot have {len(data)} bytes")
        return np.frombuffer(data, np.uint8).reshape(shape)
    if form not in ("png", "jpeg"):
        raise UsageError(f"images.{name} has format {str(form)[:20]!r}; known: png, jpeg, raw")
    return _pixels(data, form, shape, name)


def _pixels(data: bytes, form: str, shape: list[int], name: str) -> NDArray[np.uint8]:
    """A decoded PNG or JPEG; its size is compared with `shape` before a pixel is."""
    try:
        with Image.open(io.BytesIO(data), formats=[form]) as image:
            if image.mode != "RGB" or (image.height, image.width) != tuple(shape[:2]):
                raise UsageError(
                    f"images.{name} is {image.mode} {image.height} x {image.width}, its message says RGB {shape[:2]}"
                )
            return np.asarray(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"images.{name} is not a {form.upper()} that can be read ({str(error)[:80]})") from None
