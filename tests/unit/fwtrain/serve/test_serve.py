"""The policy server over real sockets on loopback: answers, access, failures, the command."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_store import FakeText, vector_statistics
from serving import CAMERAS, STATE, PictureVae, direct, observation, pictures, raw, server, small_policy
from websockets.exceptions import InvalidStatus

from fwdata.errors import UsageError
from fwdata.normalise import Normaliser
from fwtrain import cli
from fwtrain.data.usual import UsualValues
from fwtrain.infer.evaluate import evaluate_sample
from fwtrain.infer.policy import Policy
from fwtrain.model import FastWAM
from fwtrain.recipe import DeployRecipe
from fwtrain.serve.client import PolicyClient, ServerError
from fwtrain.serve.remote import ServedPolicy
from fwtrain.serve.server import PolicyServer, background
from fwtrain.serve.stats import Latencies

SILENT = logging.getLogger("silent")
SILENT.disabled = True


@pytest.fixture(scope="module")
def shared():
    """A server that many tests use: (server, host, port)."""
    made = server()
    with background(made) as (host, port):
        yield made, host, port


def test_a_state_far_outside_the_training_data_is_answered_with_a_warning(shared, caplog):
    made, host, port = shared
    degrees = np.rad2deg(STATE)
    gripper = STATE.copy()
    gripper[6] = 255.0
    with PolicyClient(host, port) as client, caplog.at_level(logging.WARNING, "fwtrain.infer"):
        assert "warnings" not in client.infer(observation(3))
        for state, name in ((degrees, made.policy.info.state.names[0]), (gripper, made.policy.info.state.names[6])):
            for _ in range(2):
                answer = client.infer(observation(3, **{"observation/state": state}))
                [warning] = answer["warnings"]
                assert (
                    warning.startswith("the state lies far outside the training data in ") and f"{name} is " in warning
                )
                assert "degrees for radians" in warning and answer["actions"].shape == (32, 14)
    assert len([r for r in caplog.records if "far outside" in r.getMessage()]) == 2  # each once


def test_images_of_another_size_than_the_recorded_are_logged_once(caplog):
    policy = small_policy()
    own = policy.info.manifest.stitch.camera_size
    policy.info = policy.info.model_copy(update={"recorded_sizes": ((24, 32),)})
    with background(server(policy)) as (host, port), PolicyClient(host, port) as client:
        for size in ((24, 32), own, (50, 64), (50, 64)):
            images = {key: np.zeros((*size, 3), np.uint8) for key in client.metadata["cameras"].values()}
            client.infer(observation(3, **images))
    (said,) = [r.getMessage() for r in caplog.records if "images of" in r.getMessage()]
    assert "sends images of 50x64 pixels, the run was trained on recordings of 24x32 pixels" in said


@pytest.mark.parametrize("mode", ["zscore", "minmax", "quantile"])
def test_what_is_far_and_what_is_not(mode):
    rows = np.random.default_rng(0).normal(0, 0.3, (500, 3)).astype(np.float32)
    rows[:, 1] = rows[:, 1] > 0  # a gripper
    rows[:, 2] = 0.7  # never moves
    usual = UsualValues(
        ("joint", "gripper", "fixed"), Normaliser.from_statistics(vector_statistics(rows), mode, "abc"), mode
    )
    assert not usual.far(rows).any()
    assert not usual.far(np.array([1.2, 1.3, 0.75], np.float32)).any()
    assert usual.far(np.array([40.0, 255.0, 57.0], np.float32)).all()
    assert usual.warning(np.array([0.1, 0, 0.7], np.float32), "it lies") is None


def test_a_client_gets_metadata_and_the_policys_actions(shared):
    made, host, port = shared
    with PolicyClient(host, port) as client:
        assert client.metadata["cameras"] == {name: f"observation/{name}" for name in CAMERAS}
        assert client.metadata["execute"] == client.metadata["action_horizon"] == 32
        assert client.metadata["action_names"] == list(made.policy.action_names)
        answer = client.infer(observation(3))
        assert answer["actions"].dtype == np.float32
        assert answer["actions"] == pytest.approx(direct(made.policy, 3), abs=1e-6)
        assert answer["server_timing"]["infer_ms"] > 0 and answer["policy_timing"]["batch"] == 1
        assert client.infer(observation(3))["server_timing"]["prev_total_ms"] > 0
        actions = client.act(pictures(3), STATE, "lift the block", seed=3)
        assert (actions == answer["actions"]).all()
        assert (client.act(pictures(3), STATE, "lift the block", seed=4) != actions).any()


def test_the_recipes_rules_are_applied():
    policy = small_policy(deploy=DeployRecipe(execute=10, gripper_sign=(6,), gripper_clip=(13,)))
    with background(server(policy)) as where, PolicyClient(*where) as client:
        actions = client.infer(observation(1))["actions"]
        assert actions == pytest.approx(direct(policy, 1)[:10], abs=1e-6)
        assert actions.shape == (10, 14) and set(np.unique(actions[:, 6])) <= {-1.0, 1.0}
        assert client.metadata["gripper_sign"] == [6] and client.metadata["execute"] == 10
    with background(server(policy, execute=4)) as where, PolicyClient(*where) as client:
        assert client.infer(observation(1))["actions"].shape == (4, 14)
    with pytest.raises(UsageError, match="--execute must be between 1 and the chunk's 32 actions, found 33"):
        server(policy, execute=33)


def test_a_closed_loop_over_the_wire_is_the_same_as_without(shared, tmp_path: Path):
    made, host, port = shared
    (tmp_path / "run.json").write_text(json.dumps(made.policy.info.model_dump(mode="json")))
    served = ServedPolicy.connect(tmp_path, f"{host}:{port}", execute=32)
    over_the_wire = evaluate_sample(served, 2, seed=5, execute=32, steps=2)
    assert over_the_wire == evaluate_sample(made.policy, 2, seed=5, execute=32, steps=2)
    few = pytest.raises(UsageError, match=r"sends 8 actions per observation, 24 are to be .* pass --execute 8")
    with background(server(execute=8)) as (host, port), few:
        ServedPolicy.connect(tmp_path, f"{host}:{port}", execute=24)
    with pytest.raises(UsageError, match="not of the form host:port"):
        ServedPolicy.connect(tmp_path, "8000", execute=24)
    with pytest.raises(UsageError, match=r"127.0.0.1:99999 is not the address of a server: Port out of range"):
        ServedPolicy.connect(tmp_path, "127.0.0.1:99999", execute=24)
    for foreign in ({}, {"execute": None, "action_names": [], "variant": "fastwam"}, ["a"]):
        with pytest.raises(UsageError, match="is not a fwtrain serve: its first message has no 'execute'"):
            ServedPolicy(made.policy.info, SimpleNamespace(metadata=foreign), 1)


def test_a_mistake_is_one_sentence_and_the_connection_goes_on(shared):
    made, host, port = shared
    with PolicyClient(host, port) as client:
        for change, message in (
            ({"observation/state": STATE[:3]}, "observation/state must be an array of 14 numbers"),
            ({f"observation/{CAMERAS[1]}": np.zeros((4, 4, 3))}, f"observation/{CAMERAS[1]} must be a uint8 image"),
            ({"prompt": ""}, "prompt must be a text"),
        ):
            with pytest.raises(ServerError, match=message) as error:
                client.infer(observation(1, **change))
            assert "Traceback" not in str(error.value) and "\n" not in str(error.value)
        assert client.infer(observation(1))["actions"] == pytest.approx(direct(made.policy, 1), abs=1e-6)
    with raw(host, port) as plain:
        plain.send("hello")
        assert plain.recv(10) == "an observation is a binary message (msgpack), found text"


def test_eight_clients_are_served_together_and_get_their_own_answers():
    gate = threading.Event()
    policy = small_policy(PictureVae(gate))
    made = server(policy, window=600.0)  # a batch that all clients are in does not wait for it
    with background(made) as where, ThreadPoolExecutor(8) as pool:
        clients = [PolicyClient(*where) for _ in range(8)]
        futures = [pool.submit(client.infer, observation(i)) for i, client in enumerate(clients)]
        gate.set()
        answers = [future.result(120) for future in futures]
        for client in clients:
            client.close()
    gate.set()
    assert {answer["policy_timing"]["batch"] for answer in answers} == {8}
    for i, answer in enumerate(answers):
        assert answer["actions"] == pytest.approx(direct(policy, i), abs=1e-5)
    assert np.abs(answers[0]["actions"] - answers[1]["actions"]).max() > 1e-3
    assert made.stats.to_json()["mean_batch"] == 8


class Broken(PictureVae):
    """Fails on bright pictures, in a way nobody foresaw."""

    def encode_first(self, frame: np.ndarray) -> np.ndarray:
        if frame.min() > 250:
            raise ZeroDivisionError("secret detail")
        return super().encode_first(frame)


@pytest.mark.slow
def test_a_failure_inside_touches_neither_its_batch_nor_the_server(caplog):
    policy = small_policy(Broken())
    bright = {f"observation/{name}": np.full((48, 64, 3), 255, np.uint8) for name in CAMERAS}
    with (
        background(server(policy, window=0.5)) as where,
        ThreadPoolExecutor(2) as pool,
        PolicyClient(*where) as one,
        PolicyClient(*where) as two,
        caplog.at_level(logging.ERROR),
    ):
        bad, good = pool.submit(one.infer, observation(0, **bright)), pool.submit(two.infer, observation(5))
        assert good.result(120)["actions"] == pytest.approx(direct(policy, 5), abs=1e-6)
        with pytest.raises(ServerError, match="the policy failed with ZeroDivisionError") as error:
            bad.result(120)
        assert "secret" not in str(error.value)
        assert one.infer(observation(5))["actions"].shape == (32, 14)
    assert "secret detail" in caplog.text  # the operator sees it


def test_actions_that_are_not_finite_are_not_sent(monkeypatch):
    policy = small_policy()
    monkeypatch.setattr(policy, "act_batch", lambda seen, seeds, steps: np.full((len(seen), 32, 14), np.nan))
    with (
        background(server(policy)) as where,
        PolicyClient(*where) as client,
        pytest.raises(ServerError, match="not finite numbers"),
    ):
        client.infer(observation())


def http_get(host: str, port: int, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_health_is_answered_over_http(shared):
    _, host, port = shared
    assert http_get(host, port, "/healthz") == (200, "OK\n")
    assert http_get(host, port, "/other")[0] == 426  # a websocket, please


def test_a_token_is_asked_for_and_never_shown(caplog):
    token = "correct horse battery staple"
    made = server(token=token)
    with caplog.at_level(logging.DEBUG), background(made) as (host, port):
        for wrong in (None, "", "wrong", token[:-1], token + "x", "ünicode"):
            with pytest.raises(ServerError, match="401 authentication required"):
                PolicyClient(host, port, wrong)
        for scheme in ("Basic", "api-key", ""):
            with pytest.raises(InvalidStatus):
                raw(host, port, additional_headers={"Authorization": f"{scheme} {token}"}, logger=SILENT)
        for scheme in ("Api-Key", "Bearer"):
            raw(host, port, additional_headers={"Authorization": f"{scheme} {token}"}, logger=SILENT).close()
        assert http_get(host, port, "/healthz")[0] == 200
        with PolicyClient(host, port, token) as client:
            assert client.infer(observation())["actions"].shape == (32, 14)
            assert token not in repr(client.metadata)
    assert token not in caplog.text and token not in repr(made)
    assert made.stats.refused == 9


def test_browsers_are_refused(shared):
    """A web page that the operator looks at must not reach the robot's policy through loopback."""
    _, host, port = shared
    with pytest.raises(InvalidStatus, match="403"):
        raw(host, port, origin="http://example.org")


def test_a_port_that_is_taken_is_said(shared):
    _, host, port = shared
    taken = PolicyServer(small_policy(), host=host, port=port)
    with pytest.raises(UsageError, match=rf"cannot listen on {host}:{port} \(.*choose another --port"):
        asyncio.run(taken.run(asyncio.Event()))


def test_latency_quantiles():
    found = Latencies()
    assert found.quantile(0.5) is None
    for milliseconds in range(1, 1001):
        found.add(milliseconds / 1e3)
    assert found.quantile(0.5) == pytest.approx(0.5, rel=0.07)
    assert found.quantile(0.99) == pytest.approx(0.99, rel=0.07)


def test_the_command_serves_until_sigterm(monkeypatch, capsys, tmp_path: Path):
    (tmp_path / "token").write_text("a long enough secret\n")
    (tmp_path / "token").chmod(0o600)
    monkeypatch.setattr(Policy, "load", lambda *_, **__: small_policy())
    monkeypatch.setattr(
        sys, "argv", ["fwtrain", "serve", "runs/x", "--port", "0", "--token-file", str(tmp_path / "token"), "--json",
                      "--execute", "8", "--steps", "2", "--threads", "1"],
    )  # fmt: skip
    answers = []
    reached: list[PolicyServer] = []
    original = PolicyServer.run

    async def run(self: PolicyServer, stop: asyncio.Event, ready) -> None:
        def up(host: str, port: int) -> None:
            ready(host, port)
            reached.append(self)
            threading.Thread(target=use, args=(host, port)).start()

        await original(self, stop, up)

    def use(host: str, port: int) -> None:
        try:
            with PolicyClient(host, port, "a long enough secret") as client:
                answers.append(client.infer(observation())["actions"])
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PolicyServer, "run", run)
    with pytest.raises(SystemExit) as end:
        cli.main()
    captured = capsys.readouterr()
    assert not end.value.code, captured.err
    result = json.loads(captured.out)
    assert result["requests"] == 1 and result["failed"] == 0 and result["p50_ms"] > 0
    assert answers[0].shape == (8, 14)
    assert "serving runs/x on ws://127.0.0.1:" in captured.err
    assert "secret" not in captured.err + captured.out


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [("", 0o600, "is empty"), ("short", 0o600, "at least 16"), ("x" * 20, 0o644, "chmod 600"), (None, 0, "token file")],
)
def test_token_files_that_do_not_do(monkeypatch, capsys, tmp_path: Path, text: str | None, mode: int, message: str):
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    monkeypatch.setattr(sys, "argv", ["fwtrain", "serve", "runs/x", "--token-file", str(file)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


class SlowText(FakeText):
    """An encoder that takes its time over one instruction."""

    def __init__(self) -> None:
        self.entered, self.gate = threading.Event(), threading.Event()

    def embedding(self, prompt: str) -> np.ndarray:
        if "think" in prompt:
            self.entered.set()
            assert self.gate.wait(120)
        return super().embedding(prompt)


def test_a_new_instruction_does_not_stall_other_clients():
    text = SlowText()
    policy = small_policy(text=text)
    policy.context("lift the block")
    with background(PolicyServer(policy, port=0)) as (host, port), ThreadPoolExecutor(1) as other:

        def ask() -> np.ndarray:
            with PolicyClient(host, port) as client:
                return client.act(pictures(1), STATE, "think about it", seed=1)

        slow = other.submit(ask)
        try:
            assert text.entered.wait(120)
            with PolicyClient(host, port) as client:
                assert np.isfinite(client.act(pictures(2), STATE, "lift the block", seed=2)).all()
            assert not slow.done()
        finally:
            text.gate.set()
        assert np.isfinite(slow.result(120)).all()


@pytest.mark.parametrize(("device", "sizes"), [("cuda", [1, 2, 3]), ("cpu", [1])])
def test_every_batch_size_is_warmed_up_on_a_gpu(monkeypatch, device, sizes):
    policy, seen = small_policy(), []
    monkeypatch.setattr(FastWAM, "device", torch.device(device))
    monkeypatch.setattr(policy, "act_batch", lambda items, seeds, steps: seen.append(len(items)))
    PolicyServer(policy, max_batch=3).warm_up()
    assert seen == sizes
