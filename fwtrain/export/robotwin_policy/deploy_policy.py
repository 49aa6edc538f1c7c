"""A trained Fast-WAM run in RoboTwin: asks `fwtrain serve` for action chunks and carries them out.

Self-contained: Python 3.10, numpy, msgpack and websockets; RoboTwin's own environment has no `fwtrain`. Two ways in:

    get_model, reset_model, encode_obs, eval   RoboTwin's `script/eval_policy.py` (until August 2026)
    XPolicyLabModel                            XPolicyLab's policy server, which RoboTwin's
                                               `scripts/eval_policy_xpolicylab.py` asks since

Cameras are uint8 [240, 320, 3] RGB, the state is [14] = left arm 6, left gripper, right arm 6, right gripper (rad; 0
closed .. 1 open), an action is float64 [14] of the same: absolute targets. Nothing here draws from numpy's global
generator, from which RoboTwin draws its instructions.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.version import version as websockets_version

CAMERAS = {"head_camera": "cam_head", "left_camera": "cam_left_wrist", "right_camera": "cam_right_wrist"}
"""RoboTwin's camera names, which the run has too, and XPolicyLab's names for them."""
JOINTS = 14
"""Length of the state and of an action."""
STATE_PARTS = ("left_arm_joint_state", "left_ee_joint_state", "right_arm_joint_state", "right_ee_joint_state")
"""XPolicyLab's parts of the state, in the order of RoboTwin's `joint_action.vector`."""

LOG = logging.getLogger("fwtrain.robotwin")
QUIET = logging.getLogger("fwtrain.robotwin.websockets")
QUIET.setLevel(logging.CRITICAL + 1)


class RoboTwinPolicyError(RuntimeError):
    """The policy cannot act; one sentence says why."""


@dataclass(frozen=True)
class RoboTwinSettings:
    """Keys of `deploy_policy.yml` (and XPolicyLab's `deploy.yml`) that this file reads."""

    server: str = "127.0.0.1:8000"
    """HOST:PORT, or a ws:// or wss:// address, of `fwtrain serve RUN`."""
    token_file: str | None = None
    """File with the server's token; None where it needs none."""
    execute: int | None = None
    """Actions carried out of a chunk; None for all that the server sends (its run's deploy.execute)."""
    whole_chunk: bool = True
    """Carry out a chunk within one call of `eval`, so that RoboTwin renders once per chunk. False: one action per call,
    for scripts that pass None inside a chunk, and for films with every action."""
    noise_seed: int = 42
    """Seed of the noise of every chunk, as in the official evaluation. RoboTwin's own `seed` chooses the scenes."""
    timeout_seconds: float = 120.0
    """How long an answer may take."""
    reconnect_seconds: float = 60.0
    """How long to try to reach a server that is not there, at first and after the connection is lost."""
    record: str | None = None
    """File to which a JSON line is appended per episode (instruction, actions, success); None for no record."""
    run: str | None = None
    """Run folder to serve from within this process, instead of `server`; needs `fwtrain` in this environment."""
    checkpoint: str = "last"
    """With `run`: last, best or a step."""
    device: str = "auto"
    """With `run`: auto, cpu, cuda or cuda:N."""

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> RoboTwinSettings:
        """Those of RoboTwin's arguments that are named as here; others are RoboTwin's own."""
        found = {field.name: arguments[field.name] for field in fields(cls) if arguments.get(field.name) is not None}
        if type(found.get("checkpoint")) is int:
            found["checkpoint"] = str(found["checkpoint"])
        for name, value in found.items():
            _check_setting(name, value)
        return cls(**found)


def _check_setting(name: str, value: object) -> None:
    """RoboTwinPolicyError for a value of another kind. RoboTwin evaluates what its --overrides give: `false` stays a
    text, `False` does not, and a text that names something of Python becomes that."""
    if name in ("execute", "noise_seed"):
        least = 1 if name == "execute" else 0
        if type(value) is not int or value < least:
            raise RoboTwinPolicyError(f"{name} must be a whole number from {least}, found {value!r}")
    elif name == "whole_chunk":
        if type(value) is not bool:
            raise RoboTwinPolicyError(f"whole_chunk must be True or False, found {value!r}")
    elif name in ("timeout_seconds", "reconnect_seconds"):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise RoboTwinPolicyError(f"{name} must be a number of seconds from 0, found {value!r}")
    elif not isinstance(value, str):
        raise RoboTwinPolicyError(f"{name} must be a text, found {value!r}; on the command line give it two quotes")


# ---- messages: msgpack with arrays as openpi's client packs them


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"cannot send a {type(value).__name__}")


def _unpacked(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" not in value:
        return value
    dtype = np.dtype(value[b"dtype"])
    if dtype.kind not in "biuf":
        raise RoboTwinPolicyError(f"the policy server sent an array of dtype {dtype}, expected numbers")
    return np.frombuffer(value[b"data"], dtype).reshape(value[b"shape"])


class PolicyConnection:
    """The connection to `fwtrain serve`; made again where it was lost. metadata: what the server says of its policy."""

    def __init__(self, settings: RoboTwinSettings) -> None:
        self._settings = settings
        self._address = settings.server if "://" in settings.server else f"ws://{settings.server}"
        self._headers: dict[str, str] = {}
        if settings.token_file is not None:
            try:
                token = Path(settings.token_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise RoboTwinPolicyError(f"token_file {settings.token_file} cannot be read ({error})") from None
            self._headers["Authorization"] = f"Api-Key {token}"
        self._socket: ClientConnection | None = None
        self.metadata: dict[str, object] = {}
        self._connect()

    def infer(self, observation: Mapping[str, Any]) -> dict[str, object]:
        """The answer to one observation. The server keeps nothing between observations, so that one whose connection
        broke is sent once more. RoboTwinPolicyError for a server that is gone, is too slow or answers with an error."""
        message = msgpack.packb(dict(observation), default=_packed)
        try:
            answer = self._exchange(message)
        except TimeoutError:
            self.close()
            raise self._error(f"did not answer within {self._settings.timeout_seconds:g} s") from None
        except (OSError, WebSocketException):
            LOG.warning("the connection to %s was lost; connecting again", self._address)
            self.close()
            try:
                answer = self._exchange(message)
            except (OSError, WebSocketException) as error:
                self.close()
                raise self._error(f"is gone ({_reason(error)})") from None
        if isinstance(answer, str):
            raise self._error(f"answered: {answer}")
        return self._read(answer)

    def _exchange(self, message: bytes) -> str | bytes:
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        self._socket.send(message)
        return self._socket.recv(self._settings.timeout_seconds)

    def _connect(self) -> None:
        """Connect and read the metadata, for as long as the settings say."""
        until = time.monotonic() + self._settings.reconnect_seconds
        while True:
            try:
                self._socket = self._open()
                metadata = self._read(self._socket.recv(self._settings.timeout_seconds))
                break
            except InvalidStatus as error:
                body = (error.response.body or b"").decode(errors="replace").strip()
                raise self._error(f"refused the connection: {error.response.status_code} {body}") from None
            except (OSError, WebSocketException) as error:
                self.close()
                if time.monotonic() >= until:
                    raise self._error(
                        f"cannot be reached ({_reason(error)}); start it with fwtrain serve RUN --port PORT"
                    ) from None
                time.sleep(min(1.0, max(until - time.monotonic(), 0.0)))
        if self.metadata and metadata != self.metadata:
            self.close()
            raise self._error("serves another policy than before: its results must not be mixed")
        self.metadata = metadata

    def _open(self) -> ClientConnection:
        options: dict[str, object] = {}
        if int(websockets_version.split(".")[0]) >= 15:
            # a scene's set-up can keep the interpreter busy for longer than a ping may take
            options = {"proxy": None, "ping_interval": None}
        options |= {"compression": None, "max_size": None, "additional_headers": self._headers, "logger": QUIET}
        return _from_daemon(partial(connect, self._address, **options))

    def _read(self, data: str | bytes) -> dict[str, object]:
        if isinstance(data, str):
            raise self._error(f"answered: {data}")
        try:
            message = msgpack.unpackb(data, raw=False, strict_map_key=False, object_hook=_unpacked)
        except (ValueError, KeyError, TypeError, msgpack.UnpackException):
            message = None
        if not isinstance(message, dict):
            raise self._error("does not speak the protocol of fwtrain serve")
        return message

    def _error(self, what: str) -> RoboTwinPolicyError:
        return RoboTwinPolicyError(f"the policy server at {self._address} {what}")

    def close(self) -> None:
        """Leave; the next observation connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _from_daemon(opening: Callable[[], ClientConnection]) -> ClientConnection:
    """The connection, opened in a daemon thread: its reading thread then is one, too, and RoboTwin's script can end.
    Older websockets (before 14) start it as the caller's kind and would keep the process alive."""
    done: Future[ClientConnection] = Future()

    def work() -> None:
        try:
            done.set_result(opening())
        except (OSError, WebSocketException) as error:
            done.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    return done.result(0)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


# ---- the policy


class RolloutRecord:
    """Appends a JSON line per episode to a file; a line about the evaluation comes first. Does nothing without one."""

    def __init__(self, path: str | None, about: Mapping[str, Any]) -> None:
        self._path = Path(path) if path is not None else None
        self._current: dict[str, object] = {}
        self._counts: Counter[str] = Counter()
        self._write({"evaluation": dict(about)})
        atexit.register(self.end)

    def observed(self, instruction: str) -> None:
        """The policy was asked once more."""
        self._current.setdefault("instruction", instruction)
        self._count("chunks")

    def acted(self, success: bool | None) -> None:
        """An action was carried out; success: whether the task is solved."""
        self._count("actions")
        self._current["success"] = success

    def _count(self, what: str) -> None:
        self._counts[what] += 1
        self._current[what] = self._counts[what]

    def end(self, **more: Any) -> None:
        """The episode is over."""
        if self._current:
            self._write({**self._current, **more})
        self._current, self._counts = {}, Counter()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, default=str) + "\n")
            except OSError as error:
                raise RoboTwinPolicyError(f"record {self._path} cannot be written ({error.strerror})") from None


class RoboTwinPolicy:
    """A served run with the queue of actions of its last chunk.

    Raises RoboTwinPolicyError when the server cannot be reached or its run is not one for RoboTwin's robot.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        settings = RoboTwinSettings.of(arguments)
        if settings.run is not None:
            settings = _with_own_server(settings)
        self.settings = settings
        self.connection = PolicyConnection(settings)
        self._execute = _checked(self.connection.metadata, settings.execute)
        self._queue: deque[NDArray[np.float64]] = deque()
        asked = ("task_name", "task_config", "seed", "instruction_type", "ckpt_setting")
        about = {"server": self.connection.metadata, "noise_seed": settings.noise_seed, "execute": self._execute}
        self.record = RolloutRecord(settings.record, {**about, **{key: arguments.get(key) for key in asked}})

    def should_request_observation(self) -> bool:
        """Whether the next action needs an observation; inside a chunk None will do."""
        return not self._queue

    def reset(self) -> None:
        """Before an episode: forget what is left of the last chunk."""
        self._queue.clear()
        self.record.end()

    def chunk(self, message: Mapping[str, Any]) -> NDArray[np.float64]:
        """float64 [n, 14]: the actions to carry out from an observation (see `encode_obs`) on."""
        answer = self.connection.infer({**message, "seed": self.settings.noise_seed})
        actions = np.asarray(answer.get("actions"), np.float64)
        if actions.ndim != 2 or actions.shape[1] != JOINTS or len(actions) < self._execute:
            raise RoboTwinPolicyError(
                f"the policy server sent actions {list(actions.shape)}, expected [{self._execute}, {JOINTS}]"
            )
        if not np.isfinite(actions).all():
            raise RoboTwinPolicyError("the policy server sent actions that are not finite numbers")
        self.record.observed(str(message["prompt"]))
        return actions[: self._execute]

    def step(self, env: Any, observation: Mapping[str, Any] | None) -> None:
        """One turn of RoboTwin's loop: at least one action. observation: may be None inside a chunk."""
        if not self._queue:
            found = env.get_obs() if observation is None else observation
            self._queue.extend(self.chunk({**encode_obs(found), "prompt": env.get_instruction()}))
        while True:
            env.take_action(self._queue.popleft(), action_type="qpos")
            self.record.acted(bool(env.eval_success))
            over = env.eval_success or env.take_action_cnt >= env.step_lim
            if over or not self.settings.whole_chunk or not self._queue:
                return


def _checked(metadata: Mapping[str, Any], execute: int | None) -> int:
    """Actions to carry out of a chunk, of a server whose run fits RoboTwin's robot."""
    cameras, states, actions = (metadata.get(key, ()) for key in ("cameras", "state_names", "action_names"))
    if set(cameras) != set(CAMERAS):
        raise RoboTwinPolicyError(f"the served run has cameras {sorted(cameras)}, RoboTwin gives {sorted(CAMERAS)}")
    if len(states) != JOINTS or len(actions) != JOINTS:
        raise RoboTwinPolicyError(
            f"the served run has {len(states)} state values and {len(actions)} action values, "
            f"RoboTwin's two arms have {JOINTS}"
        )
    sent = int(metadata["execute"])
    if execute is not None and execute > sent:
        raise RoboTwinPolicyError(
            f"execute is {execute}, the server sends {sent} actions per observation; start it with --execute {execute}"
        )
    return execute or sent


def _with_own_server(settings: RoboTwinSettings) -> RoboTwinSettings:
    """Serve the run from a thread of this process, on a free port of the loopback address."""
    try:
        from fwtrain.infer.policy import Policy
        from fwtrain.model import Denoising
        from fwtrain.serve.server import PolicyServer, background
        from fwtrain.train.folder import RunFolder
    except ImportError:
        raise RoboTwinPolicyError(
            "run needs fwtrain in RoboTwin's environment (Python 3.12); without it start fwtrain serve elsewhere and "
            "set server"
        ) from None
    assert settings.run is not None
    how = Denoising(steps=RunFolder(Path(settings.run)).info().student_steps or Denoising().steps)
    policy = Policy.load(settings.run, checkpoint=settings.checkpoint, device=settings.device, sampling=how)
    server = PolicyServer(policy, port=0, seed=settings.noise_seed, steps=how.steps)
    server.warm_up()
    running = contextlib.ExitStack()
    host, port = running.enter_context(background(server))
    atexit.register(running.close)
    changed = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return RoboTwinSettings(**{**changed, "server": f"{host}:{port}", "token_file": None})


def _image(value: Any, name: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB."""
    image = np.asarray(value)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise RoboTwinPolicyError(f"{name} must be uint8 [H, W, 3] RGB, found {image.dtype} {list(image.shape)}")
    return image


def _message(images: Mapping[str, Any], state: Any) -> dict[str, object]:
    vector = np.asarray(state, np.float32).reshape(-1)
    if vector.shape != (JOINTS,):
        raise RoboTwinPolicyError(f"the state must have {JOINTS} values, found {len(vector)}")
    found: dict[str, object] = {f"observation/{name}": _image(value, name) for name, value in images.items()}
    return {**found, "observation/state": vector}


# ---- RoboTwin's script/eval_policy.py: four functions, found by name


def get_model(usr_args: Mapping[str, Any]) -> RoboTwinPolicy:
    """Connect to the server, once per evaluation. usr_args: the keys of `deploy_policy.yml` with overrides."""
    return RoboTwinPolicy(usr_args)


def reset_model(model: RoboTwinPolicy) -> None:
    """Before every episode."""
    model.reset()


def encode_obs(observation: Mapping[str, Any]) -> dict[str, object]:
    """The server's keys for what `TASK_ENV.get_obs()` gives; the instruction is added by `eval`."""
    cameras = observation.get("observation", {})
    for name in CAMERAS:
        if "rgb" not in cameras.get(name, {}):
            raise RoboTwinPolicyError(
                f"the observation has no {name}.rgb; the task config needs data_type.rgb and, for the wrists, "
                "camera.collect_wrist_camera"
            )
    if "vector" not in observation.get("joint_action", {}):
        raise RoboTwinPolicyError("the observation has no joint_action.vector; the task config needs data_type.qpos")
    return _message({name: cameras[name]["rgb"] for name in CAMERAS}, observation["joint_action"]["vector"])


def eval(TASK_ENV: Any, model: RoboTwinPolicy, observation: Mapping[str, Any] | None) -> None:
    """One turn of the loop: ask for a chunk where none is left, and carry out one action or the whole chunk."""
    model.step(TASK_ENV, observation)


# ---- XPolicyLab's policy server


class XPolicyLabModel:
    """What XPolicyLab's policy server calls. One client at a time: `get_action` does not say whose observation it is
    about, so start one server per RoboTwin process (num_workers 1)."""

    def __init__(self, deploy_cfg: Mapping[str, Any]) -> None:
        if str(deploy_cfg.get("action_type") or "joint") not in ("joint", "qpos"):
            raise RoboTwinPolicyError(f"action_type must be joint, found {deploy_cfg['action_type']!r}")
        self.policy = RoboTwinPolicy(deploy_cfg)
        self._observations: list[Mapping[str, Any]] = []
        self._case: dict[str, object] = {}

    def prepare_case(self, case_meta: Mapping[str, Any] | None = None) -> None:
        """Before an episode: its task, scene seed and instruction, for the record."""
        self._case = {key: (case_meta or {}).get(key) for key in ("task_name", "seed")}

    def reset(self, obs: Any = None) -> None:
        """Before an episode."""
        self._observations = []
        self.policy.reset()

    def update_obs(self, obs: Mapping[str, Any]) -> None:
        """The newest observation; only the one before `get_action` is looked at."""
        self._observations = [obs]

    def update_obs_batch(self, obs_list: Sequence[Mapping[str, Any]]) -> None:
        """The newest observations of several environments."""
        self._observations = list(obs_list)

    def get_action(self) -> NDArray[np.float64]:
        """float64 [n, 14] from the newest observation on."""
        if not self._observations:
            raise RoboTwinPolicyError("get_action was called before update_obs")
        return self.policy.chunk(_from_xpolicylab(self._observations[-1]))

    def get_action_batch(self, env_idx_list: Any = None) -> list[NDArray[np.float64]]:
        """One chunk per observation of `update_obs_batch`, in its order."""
        return [self.policy.chunk(_from_xpolicylab(observation)) for observation in self._observations]

    def trial_end(self, result: Mapping[str, Any] | None = None) -> None:
        """After an episode: its success, for the record."""
        self.policy.record.end(**{**self._case, "success": (result or {}).get("success")})

    on_trial_end = trial_end


def _from_xpolicylab(observation: Mapping[str, Any]) -> dict[str, object]:
    """The server's keys for an observation of XPolicyLab's format v1.0."""
    vision, state = observation.get("vision", {}), observation.get("state", {})
    images = {}
    for name, theirs in CAMERAS.items():
        if "color" not in vision.get(theirs, {}):
            raise RoboTwinPolicyError(f"the observation has no vision.{theirs}.color")
        images[name] = vision[theirs]["color"]
    missing = [part for part in STATE_PARTS if part not in state]
    if missing:
        raise RoboTwinPolicyError(f"the observation has no state.{missing[0]}")
    vector = np.concatenate([np.asarray(state[part], np.float32).reshape(-1) for part in STATE_PARTS])
    return {**_message(images, vector), "prompt": _instruction(observation)}


def _instruction(observation: Mapping[str, Any]) -> str:
    """`instruction`, or where it is empty the first text of `instructions`."""
    listed = observation.get("instructions")
    others = [listed] if isinstance(listed, str) or listed is None else listed
    for text in (observation.get("instruction"), *others):
        if isinstance(text, str) and text.strip():
            return str(text)
    raise RoboTwinPolicyError(
        "the observation has no instruction: `instruction` is empty and `instructions` holds no text; start RoboTwin "
        "with an --instruction_type that its task has sentences for"
    )
