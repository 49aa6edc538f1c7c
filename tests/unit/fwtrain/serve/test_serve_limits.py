"""The policy server under clients that are too many, too slow, too fast, broken or gone."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving import HANDSHAKE, PictureVae, direct, mutations, observation, raw, server, small_policy
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from fwtrain.serve.client import PolicyClient, ServerError
from fwtrain.serve.server import Limits, background
from fwtrain.serve.wire import pack


def test_a_message_too_long_ends_its_connection_only():
    made = server(limits=Limits(message_bytes=50_000))
    with background(made) as (host, port), PolicyClient(host, port) as other:
        with raw(host, port) as plain:
            plain.send(b"x" * 50_001)
            with pytest.raises(ConnectionClosed) as closed:
                plain.recv(60)
            assert closed.value.rcvd.code == 1009
        assert other.infer(observation())["actions"].shape == (32, 14)


def has_room(host: str, port: int) -> bool:
    """Whether the server takes another client within some seconds."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            PolicyClient(host, port).close()
        except ServerError:
            time.sleep(0.05)
        else:
            return True
    return False


def test_more_clients_than_allowed_are_turned_away():
    with background(server(limits=Limits(clients=2))) as (host, port):
        full = pytest.raises(ServerError, match="503 too many clients; try again later")
        with PolicyClient(host, port), PolicyClient(host, port), full:
            PolicyClient(host, port)
        assert has_room(host, port), "places of clients that left stay taken"


def test_mutated_messages_leave_the_server_as_it_was():
    made = server(limits=Limits(rate=1e6))
    answered = 0
    with background(made) as (host, port), PolicyClient(host, port) as other:
        plain = raw(host, port)
        for number, message in enumerate(mutations(300, seed=1)):
            plain.send(message)
            answer = plain.recv(60)
            answered += 1
            if isinstance(answer, str):
                assert "Traceback" not in answer and "\n" not in answer
            if number % 100 == 0:
                assert other.infer(observation(2))["actions"] == pytest.approx(direct(made.policy, 2), abs=1e-6)
        plain.close()
    assert answered == 300
    assert made.stats.failed > 100


def test_random_bytes_instead_of_websocket_frames():
    random = np.random.default_rng(0)
    with background(server()) as (host, port):
        for number in range(60):
            with socket.create_connection((host, port), timeout=60) as plain:
                if number % 2:  # a good handshake, then broken frames
                    plain.sendall(HANDSHAKE)
                plain.sendall(random.bytes(int(random.integers(1, 3000))))
        with PolicyClient(host, port) as client:
            assert client.infer(observation())["actions"].shape == (32, 14)


@pytest.mark.slow
def test_a_client_that_takes_no_answers_is_let_go(monkeypatch):
    policy = small_policy()
    chunk = np.zeros((1, 32, 14), np.float32)
    monkeypatch.setattr(policy, "act_batch", lambda seen, seeds, steps: np.repeat(chunk, len(seen), 0))
    made = server(policy, limits=Limits(send=0.3, rate=1e6))
    asked = Frame(Opcode.BINARY, pack(observation())).serialize(mask=True)
    with background(made) as (host, port), socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(60)
        deaf.connect((host, port))
        deaf.sendall(HANDSHAKE)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(50_000):  # answers of 90 MB: more than any system's buffers between the two hold
                deaf.sendall(asked)
        with PolicyClient(host, port) as client:
            assert client.infer(observation(2))["actions"].shape == (32, 14)
            assert made.stats.lost == 1


def test_connections_beyond_any_use_are_dropped_at_once():
    made = server(limits=Limits(clients=2, handshake=600))
    with background(made) as (host, port):
        held = [socket.create_connection((host, port), timeout=60) for _ in range(8)]
        for item in held:
            item.sendall(b"GET ")  # the handshake never ends
        time.sleep(0.2)
        with socket.create_connection((host, port), timeout=60) as more:
            assert more.recv(1) == b""  # closed, and not after the time of a handshake
        for item in held:
            item.close()
        assert has_room(host, port), "places of connections that left stay taken"


def slow_clients(host: str, port: int) -> list[socket.socket]:
    """Half-open handshakes and half a frame."""
    found = [socket.create_connection((host, port), timeout=60) for _ in range(21)]
    for item in found[1:]:
        item.sendall(b"GET / HTTP/1.1\r\nHost: ")
    found[0].sendall(HANDSHAKE + b"\x82\xfe\x10\x00abcdefgh")
    return found


@pytest.mark.slow
def test_slow_clients_hold_nobody_up():
    made = server(limits=Limits(handshake=600, ping=600, send=600))
    with background(made) as (host, port):
        slow = slow_clients(host, port)
        with PolicyClient(host, port) as client:
            for number in range(3):
                assert client.infer(observation(number))["actions"].shape == (32, 14)
        for item in slow:
            item.close()


@pytest.mark.slow
def test_slow_clients_are_let_go():
    with background(server(limits=Limits(handshake=0.5, ping=0.5))) as (host, port):
        for item in slow_clients(host, port):
            while item.recv(65536):
                pass
            item.close()


def test_a_client_that_leaves_while_it_is_served():
    gate = threading.Event()
    vae = PictureVae(gate)
    made = server(small_policy(vae))
    with background(made) as (host, port):
        plain = raw(host, port)
        plain.send(pack(observation()))
        assert vae.entered.wait(60)
        plain.socket.shutdown(socket.SHUT_RDWR)  # as when its process dies
        gate.set()
        with PolicyClient(host, port) as client:
            assert client.infer(observation(2))["actions"] == pytest.approx(direct(made.policy, 2), abs=1e-6)


def test_requests_under_way_are_answered_before_the_server_stops():
    gate = threading.Event()
    vae = PictureVae(gate)
    made = server(small_policy(vae))
    with ThreadPoolExecutor(1) as pool:
        with background(made) as (host, port):
            client = PolicyClient(host, port)
            future = pool.submit(client.infer, observation())
            assert vae.entered.wait(60)
            threading.Timer(0.2, gate.set).start()
        assert future.result(60)["actions"].shape == (32, 14)
    with pytest.raises(ServerError, match="the policy server is gone"):
        client.infer(observation())
    with pytest.raises(ServerError, match="no policy server at"):
        PolicyClient(host, port)


@pytest.mark.slow
def test_fast_clients_are_slowed_down_not_refused():
    made = server(limits=Limits(rate=20))
    with background(made) as (host, port), raw(host, port) as plain:
        began = time.monotonic()
        for _ in range(30):  # 20 at once, the rest at 20 per second
            plain.send(b"\xc1")
            assert isinstance(plain.recv(60), str)
        assert time.monotonic() - began > 0.4
    assert made.stats.requests == 30


def test_nothing_is_left_open():
    """Sockets and threads of a hundred clients are gone with them."""
    made = server()
    with background(made) as (host, port):
        PolicyClient(host, port).close()
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for number in range(100):
            plain = raw(host, port)
            if number % 2:
                plain.socket.shutdown(socket.SHUT_RDWR)
            else:
                plain.close()
        until = time.monotonic() + 60
        while (made._active or len(os.listdir("/proc/self/fd")) > before) and time.monotonic() < until:  # noqa: PTH208
            time.sleep(0.02)
        assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
        assert not made._active
