"""The policy server under load, and with openpi's own client. FWTRAIN_LOAD_SECONDS=300 for the long version."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from paths import SUPPORT
from serving import STATE, observation, pictures, small_policy

from fwdata.errors import FwdataError
from fwtrain.serve import load
from fwtrain.serve.load import _result, _Totals, measure, served
from fwtrain.serve.server import PolicyServer, background

SERVER = [sys.executable, str(SUPPORT / "serving.py")]
SECONDS = float(os.environ.get("FWTRAIN_LOAD_SECONDS", "20"))


@pytest.mark.slow
def test_eight_clients_at_full_rate_leave_memory_and_files_as_they_were():
    with served(SERVER) as (host, port, pid):
        measure(host, port, pid=pid, clients=8, seconds=SECONDS / 4)  # else a slow server warms up for all the time
        result = measure(host, port, pid=pid, clients=8, seconds=SECONDS)
    print(result)
    assert result.failed == 0 and result.requests >= 8
    assert result.rss_mb is not None and result.handles is not None
    _, settled, last = result.rss_mb
    assert last - settled < 8
    assert result.handles[1] <= result.handles[0]


@pytest.mark.parametrize("seconds", [0.3, 0.01])  # the short one has a single sample of the memory, or two
def test_a_short_measurement_in_this_process(seconds: float, monkeypatch: pytest.MonkeyPatch):
    make = load.observations
    late = 0.1 if seconds < 0.1 else 0.0  # a machine on which the time is over before anything is asked
    monkeypatch.setattr(load, "observations", lambda *given: (time.sleep(late), make(*given))[1])
    with background(PolicyServer(small_policy(), port=0, steps=1)) as (host, port):
        result = measure(host, port, pid=os.getpid(), clients=2, seconds=seconds)
    assert result.requests >= 2 and result.failed == 0
    assert result.p50_ms is not None and result.rss_mb is not None and result.rss_mb[0] > 10
    assert set(result.to_json()) >= {"requests", "rss_mb_per_minute", "handles"}


@pytest.mark.slow
def test_the_command_measures_a_server_of_the_run(call, monkeypatch):
    commands = []
    with background(PolicyServer(small_policy(), port=0, steps=1)) as (host, port):

        def served_here(command):
            commands.append(command[2:])
            return nullcontext((host, port, os.getpid()))

        monkeypatch.setattr("fwtrain.serve.load.served", served_here)
        flags = ("bench", "serve", "runs/a", "--clients", 2, "--seconds", 0.3, "--device", "cpu")
        code, out, _ = call(*flags, "--json")
        assert code == 0
        assert json.loads(out)["requests"] > 0 and json.loads(out)["clients"] == 2
        code, out, _ = call(*flags, "--threads", 1)
    assert code == 0
    assert re.search(r"2 clients for \d+ s", out) and "server memory" in out
    assert commands[1] == [*commands[0], "--threads", "1"] == [
        "fwtrain", "serve", "runs/a", "--port", "0", "--device", "cpu", "--threads", "1"
    ]  # fmt: skip


def test_growth_is_seen_as_a_slope():
    samples = [(float(t), 100.0 + t / 6, 10 + t // 50) for t in range(101)]  # 10 MB and 1.2 files per minute
    result = _result([_Totals(requests=5)], samples, 100.0)
    assert result.rss_mb_per_minute == pytest.approx(10)
    assert result.handles == (10, 12)
    assert result.rss_mb == pytest.approx((100, 104.1667, 116.6667))


def test_a_server_that_does_not_start_is_said():
    command = [sys.executable, "-c", "import sys; sys.exit('error: no such run')"]
    with pytest.raises(FwdataError, match="the server did not start: error: no such run"), served(command):
        pass


OPENPI = """
import sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
host, port, file = sys.argv[1:]
policy = WebsocketClientPolicy(host, int(port), api_key="a token that is long enough")
seen = dict(np.load(file))
seen["prompt"] = str(seen["prompt"])
answer = policy.infer(seen)
assert policy.get_server_metadata()["policy"] == "fast-wam"
assert answer["server_timing"]["infer_ms"] > 0
try:
    policy.infer({**seen, "observation/state": np.zeros(3)})
except RuntimeError as error:
    assert "must be an array of 14 numbers" in str(error), error
again = policy.infer(seen)["actions"]
assert (again == answer["actions"]).all()
np.save(file + ".actions.npy", again)
"""


@pytest.mark.slow
def test_openpis_own_client_gets_the_policys_actions(tmp_path: Path):
    """Its 0.1.2 on PyPI pins numpy < 2; its websocket client needs only what is here, so no dependencies."""
    target = tmp_path / "packages"
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--no-deps",
        "--target",
        str(target),
        "openpi-client==0.1.2",
    ]
    subprocess.run([*install, "--python", sys.executable], check=True, capture_output=True)
    policy = small_policy()
    server = PolicyServer(policy, port=0, steps=2, seed=7, token="a token that is long enough")
    sent = {key: value for key, value in observation(4).items() if key != "seed"}
    np.savez(tmp_path / "seen.npz", **sent)
    with background(server) as (host, port):
        command = [sys.executable, "-c", OPENPI, host, str(port), str(tmp_path / "seen.npz")]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(target)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = policy.commands(policy.act(pictures(4), STATE, "lift the block", seed=7, steps=2))
    assert np.load(tmp_path / "seen.npz.actions.npy") == pytest.approx(expected, abs=1e-6)
