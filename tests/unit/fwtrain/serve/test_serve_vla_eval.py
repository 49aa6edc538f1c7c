"""vla-eval's protocol: on the wire without its package, and under its own runner where it is installed."""

from __future__ import annotations

import http.client
import io
import socket
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from fake_store import FakeStore
from PIL import Image
from serving import HANDSHAKE, PictureVae, server, small_policy
from training import side_by_side
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fwtrain.infer.policy import Policy
from fwtrain.recipe import DeployRecipe
from fwtrain.serve.observations import ObservationReader, Request
from fwtrain.serve.server import Limits, background
from fwtrain.serve.vla_eval import HarnessProtocol, HarnessSession
from fwtrain.train.folder import Scaling

LIBERO = "vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark"
STATE = np.linspace(-0.5, 0.5, 14)
OFFICIAL = {
    "send_wrist_image": True,
    "send_state": True,
    "num_steps_wait": 30,
    "quat_no_antipodal": True,
    "env_seed": 42,
    "max_steps": 400,
}


@pytest.fixture(scope="module")
def served():
    """(server, "host:port") of a run with LIBERO's cameras that sends 10 actions of a chunk."""
    made = server(small_policy(deploy=DeployRecipe(execute=10), store=side_by_side(FakeStore())))
    with background(made) as (host, port):
        yield made, f"{host}:{port}"


def array(value: np.ndarray) -> dict[str, Any]:
    return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}


def encoded(value: np.ndarray, form: str = "png") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(value).save(buffer, format=form.upper())
    return {"__image__": True, "format": form, "data": buffer.getvalue(), "shape": list(value.shape)}


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (96, 32, 3), np.uint8), random.integers(0, 256, (96, 32, 3), np.uint8)


def observation(seed: int = 0, **changes: Any) -> dict[str, Any]:
    scene, wrist = pictures(seed)
    images = {"agentview": encoded(scene), "wrist": encoded(wrist)}
    return {"images": images, "states": array(STATE), "task_description": "lift the block", **changes}


class Harness:
    """The harness's end of the wire."""

    def __init__(self, address: str, path: str = "/vla-eval") -> None:
        self.socket, self.seq = connect(f"ws://{address}{path}", compression=None, proxy=None), 0

    def send(self, kind: str, payload: dict[str, Any]) -> int:
        self.seq += 1
        self.socket.send(msgpack.packb({"type": kind, "payload": payload, "seq": self.seq, "timestamp": 1.5}))
        return self.seq

    def ask(self, kind: str, payload: dict[str, Any]) -> tuple[str, Any]:
        seq = self.send(kind, payload)
        answer = msgpack.unpackb(self.socket.recv(20))
        assert answer["seq"] == seq and isinstance(answer["timestamp"], float)
        return answer["type"], answer["payload"]

    def act(self, payload: dict[str, Any]) -> np.ndarray:
        kind, found = self.ask("observation", payload)
        assert kind == "action", found
        packed = found["actions"]
        assert packed["__ndarray__"] is True
        return np.frombuffer(packed["data"], packed["dtype"]).reshape(packed["shape"])

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()


def direct(policy: Policy, seed: int) -> np.ndarray:
    scene, wrist = pictures(seed)
    state = STATE.astype(np.float32)
    chunk = policy.act({"image": scene, "wrist_image": wrist}, state, "lift the block", seed=42, steps=2)
    return policy.commands(chunk)[:10]


def test_an_observation_is_answered_by_one_action_and_a_chunk_by_ten(served):
    made, address = served
    before = made.stats.requests
    with Harness(address) as harness:
        kind, hello = harness.ask("hello", {"harness_version": "0.8.0", "protocol_version": 1, "benchmark": LIBERO})
        assert kind == "hello" and hello["protocol_version"] == 1 and hello["observation_params"] == OFFICIAL
        assert hello["policy"]["execute"] == 10
        harness.send("episode_start", {"task": {"name": "x", "suite": "libero_goal", "task_id": 3}})
        actions = [harness.act(observation(step)) for step in range(12)]
        assert {(action.dtype.str, action.shape) for action in actions} == {("<f4", (14,))}
        assert np.stack(actions[:10]) == pytest.approx(direct(made.policy, 0), abs=1e-6)
        assert np.stack(actions[10:]) == pytest.approx(direct(made.policy, 10)[:2], abs=1e-6)
        harness.send("episode_end", {"metrics": {"success": True}, "steps": 12})
        harness.send("episode_start", {"task": {"name": "x"}})
        assert harness.act(observation(5)) == pytest.approx(direct(made.policy, 5)[0], abs=1e-6)
        nothing = {"task_description": "lift the block"}  # a step that RoboTwin did not render
        assert harness.act(nothing) == pytest.approx(direct(made.policy, 5)[1], abs=1e-6)
    assert made.stats.requests - before == 3  # actions left of a chunk are not counted


def test_raw_and_jpeg_images_and_plain_arrays_are_read(served):
    made, address = served
    scene, wrist = pictures(1)
    raw = {"__image__": True, "format": "raw", "data": scene.tobytes(), "dtype": "|u1", "shape": list(scene.shape)}
    with Harness(address) as harness:
        sent = observation(images={"agentview": raw, "wrist": array(wrist)})
        assert harness.act(sent) == pytest.approx(direct(made.policy, 1)[0], abs=1e-6)
        harness.send("episode_start", {})
        harness.act(observation(images={"image": encoded(scene, "jpeg"), "wrist_image": encoded(wrist, "jpeg")}))


def test_a_mistake_is_an_error_message_and_the_connection_goes_on(served):
    made, address = served
    good, large = encoded(pictures(0)[0]), {**encoded(pictures(0)[0]), "shape": [9000, 32, 3]}
    grey = encoded(np.zeros((96, 32), np.uint8)) | {"shape": [96, 32, 3]}
    failed = made.stats.failed
    cases: tuple[tuple[str, Any, str], ...] = (
        ("observation", {}, "no images, and no action of the last chunk is left"),
        ("observation", observation(images={"agentview": good}), "lacks camera 'wrist_image'"),
        ("observation", observation(states=array(np.zeros(8))), "state must be an array of 14 numbers"),
        ("observation", observation(task_description=None), "prompt must be a text"),
        ("observation", observation(images={"agentview": large, "wrist": good}), "a side has at most 8192 pixels"),
        ("observation", observation(images={"agentview": grey, "wrist": good}), "is L 96 x 32, its message says RGB"),
        (
            "observation",
            observation(images={"agentview": {**good, "data": good["data"][:200]}, "wrist": good}),
            "images.agentview is not a PNG that can be read",
        ),
        (
            "observation",
            observation(images={"agentview": {**good, "shape": [96, 33, 3]}, "wrist": good}),
            "its message says RGB [96, 33]",
        ),
        ("observation", observation(images={"agentview": {**good, "format": "webp"}, "wrist": good}), "format 'webp'"),
        ("hello", {"protocol_version": 2}, "protocol version 2, this server 1"),
        ("dance", {}, "message type 'dance' is unknown"),
    )
    with Harness(address) as harness:
        for kind, payload, sentence in cases:
            answered, found = harness.ask(kind, payload)
            assert answered == "error" and sentence in found["error"] and "\n" not in found["error"]
        harness.socket.send("text")
        assert "found text" in msgpack.unpackb(harness.socket.recv(20))["payload"]["error"]
        harness.socket.send(msgpack.packb({"type": "hello"}))
        assert "needs type, payload" in msgpack.unpackb(harness.socket.recv(20))["payload"]["error"]
        assert harness.act(observation(2)) == pytest.approx(direct(made.policy, 2)[0], abs=1e-6)
    assert made.stats.failed - failed == len(cases) + 2


def test_each_benchmark_is_asked_for_its_official_protocol():
    def params(name: str, suite: str | None = None) -> dict[str, Any]:
        return HarnessProtocol(name, suite, execute=24).params

    assert params("LIBEROBenchmark") == params("LIBEROPlusBenchmark") == OFFICIAL
    assert params("LIBEROBenchmark", "libero_10") == {**OFFICIAL, "max_steps": 700, "suite": "libero_10"}
    folded = {"send_wrist_image": True, "send_state": True, "num_steps_wait": 30}
    assert params("LIBEROProBenchmark") == params("LIBEROMemBenchmark") == folded
    assert params("RoboTwinBenchmark") == {"instruction_type": "unseen", "render_every": 24}
    assert params("SimplerEnvBenchmark") == params("") == {}


def test_a_suite_with_another_limit_is_refused_and_the_path_chooses_it(served):
    address = served[1]
    with Harness(address) as harness:
        harness.ask("hello", {"protocol_version": 1, "benchmark": LIBERO})
        harness.send("episode_start", {"task": {"suite": "libero_10"}})
        kind, found = harness.ask("observation", observation())
        assert kind == "error" and "have 700 steps" in found["error"] and "/vla-eval/libero_10" in found["error"]
    with Harness(address, "/vla-eval/libero_10") as harness:
        _, hello = harness.ask("hello", {"protocol_version": 1, "benchmark": LIBERO})
        assert hello["observation_params"]["max_steps"] == 700
        harness.send("episode_start", {"task": {"suite": "libero_10"}})
        harness.act(observation())
    with pytest.raises(InvalidStatus) as refused:
        Harness(address, "/vla-eval/libero_11")
    assert refused.value.response.status_code == 404
    host, port = address.split(":")
    asked = http.client.HTTPConnection(host, int(port), timeout=60)
    asked.request("GET", "/health")
    assert asked.getresponse().status == 200
    asked.close()


NAMED = ("x", "y", "z", "eef_axis_angle_x", "eef_axis_angle_y", "eef_axis_angle_z", "left", "right")


@pytest.mark.parametrize("names", [NAMED, tuple(f"state_{i}" for i in range(8))], ids=["own", "imported"])
def test_a_folded_rotation_is_unfolded_towards_the_runs_states(names):
    policy = small_policy()
    centre = np.array([0, 0, 0, 3.1, 0.1, -0.1, 0, 0])
    scaling = Scaling(names=names, scale=(0.5,) * 8, offset=tuple(-0.5 * centre))
    info = policy.info.model_copy(update={"state": scaling, "source": "libero"})

    async def nothing(request: Request) -> np.ndarray:
        return np.zeros((1, 14), np.float32)

    def read(benchmark: str, rotation: list[float]) -> np.ndarray:
        session = HarnessSession(info, ObservationReader(info, 42), nothing, execute=1)
        session._protocol = HarnessProtocol(benchmark)
        state = np.array([1, 2, 3, *rotation, 4, 5], np.float32)
        return session._translated({"images": {}, "states": state})["state"]

    angle, axis = 3.3, np.array([1.0, 0.05, 0.0]) / np.linalg.norm([1.0, 0.05, 0.0])
    folded = list(-(2 * np.pi - angle) * axis)  # what a benchmark makes of it: the same rotation, |v| <= pi
    assert read("LIBEROProBenchmark", folded) == pytest.approx([1, 2, 3, *(angle * axis), 4, 5], abs=1e-5)
    assert read("LIBEROProBenchmark", list(angle * axis))[3:6] == pytest.approx(angle * axis, abs=1e-5)
    assert read("LIBEROBenchmark", folded)[3:6] == pytest.approx(folded, abs=1e-6)  # quat_no_antipodal was asked for
    assert read("LIBEROProBenchmark", [0, 0, 0])[3:6] == pytest.approx([0, 0, 0])


def test_liberos_gripper_is_signed_where_the_recipe_has_no_rule():
    """The harness sends everything from 0 on as closed: a gripper in 0 .. 1 would never open."""
    chunk = np.tile(np.array([0.1, 0.9, 0.4], np.float32)[:, None], (1, 7))

    def sent(benchmark: str, suite: str | None = None, sign: tuple[int, ...] = ()) -> list[float]:
        info = small_policy().info
        session = HarnessSession(info, ObservationReader(info, 42), None, 3, suite, {"gripper_sign": list(sign)})
        session._protocol = HarnessProtocol(benchmark, suite)
        found = session._commands(chunk)
        assert (found[:, :6] == chunk[:, :6]).all()
        return found[:, 6].tolist()

    assert sent("LIBEROBenchmark") == sent("LIBEROProBenchmark") == sent("", "libero_goal") == [1, -1, 1]
    kept = chunk[:, 6].tolist()
    assert sent("SimplerEnvBenchmark") == sent("") == sent("LIBEROBenchmark", sign=(6,)) == kept


def test_the_harness_evaluates_against_the_server(served, tmp_path: Path):
    """vla-eval's own runner, offline and without Docker."""
    pytest.importorskip("vla_eval", reason="vla-eval is not installed; the tests above cover its wire")
    import harness_benchmark
    from vla_eval.api import run

    made, address = served
    harness_benchmark.ASKED.clear()
    harness_benchmark.ACTIONS.clear()
    before = made.stats.requests
    benchmark = {
        "benchmark": "harness_benchmark:LIBEROBenchmark",
        "episodes_per_task": 3,
        "params": {"suite": "libero_goal", "ends_after": 25},
    }
    (result,) = run(
        {"benchmarks": [benchmark]}, server_url=f"ws://{address}/vla-eval", no_save=True, output_dir=tmp_path
    )
    episodes = result["tasks"][0]["episodes"]
    assert [episode["metrics"]["success"] for episode in episodes] == [True] * 3
    assert harness_benchmark.ASKED == [
        {"suite": "libero_goal", "num_steps_wait": 30, "max_steps": 400, "env_seed": 42, "quat_no_antipodal": True}
    ]
    assert made.stats.requests - before == 9  # 25 steps in chunks of 10, three times
    images = {"image": harness_benchmark.image(10, 0), "wrist_image": harness_benchmark.image(10, 1)}
    state = harness_benchmark.state(10).astype(np.float32)
    expected = made.policy.commands(made.policy.act(images, state, "lift the block", seed=42, steps=2))[:10]
    for actions in harness_benchmark.ACTIONS:
        assert len(actions) == 25 and np.stack(actions[10:20]) == pytest.approx(expected, abs=1e-5)


def test_a_suite_of_the_configuration_alone_fails_with_the_sentence(served, tmp_path: Path):
    pytest.importorskip("vla_eval", reason="vla-eval is not installed; the tests above cover its wire")
    from vla_eval.api import run

    benchmark = {"benchmark": "harness_benchmark:LIBEROBenchmark", "params": {"suite": "libero_10"}}
    (result,) = run(
        {"benchmarks": [benchmark]}, server_url=f"ws://{served[1]}/vla-eval", no_save=True, output_dir=tmp_path
    )
    (episode,) = result["tasks"][0]["episodes"]
    assert not episode["metrics"]["success"] and "connect to /vla-eval/libero_10" in episode["failure_detail"]


def test_images_of_steps_inside_a_chunk_are_not_decoded(monkeypatch):
    opened = []
    opening = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(1) or opening(*a, **k))
    policy = small_policy(PictureVae(), deploy=DeployRecipe(execute=10), store=side_by_side(FakeStore()))
    with background(server(policy)) as (host, port), Harness(f"{host}:{port}") as harness:
        for step in range(11):
            harness.act(observation(step))
    assert len(opened) == 4


@pytest.mark.slow
def test_a_simulator_that_sets_up_a_scene_may_leave_pings_unanswered():
    with background(server(limits=Limits(ping=0.2))) as (host, port):
        harness, plain = (socket.create_connection((host, port), timeout=60) for _ in range(2))
        with harness, plain:
            for peer, path in ((harness, b"/vla-eval"), (plain, b"/")):
                peer.sendall(HANDSHAKE.replace(b"GET / ", b"GET " + path + b" "))
                assert peer.recv(65536).startswith(b"HTTP/1.1 101 ")
            while plain.recv(65536):  # it is closed
                pass
            harness.settimeout(1)
            with pytest.raises(TimeoutError):  # it is not, although its first ping is older
                while harness.recv(65536):
                    pass
