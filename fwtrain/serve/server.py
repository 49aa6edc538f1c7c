"""The websocket server: connections, limits, token, health. The protocol is described in `fwtrain.serve`."""

from __future__ import annotations

import asyncio
import hmac
import http
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import State

from fwdata.envs.base import Observation
from fwdata.errors import FwdataError, UsageError
from fwdata.normalise import Float32
from fwtrain.infer.about import scaling_digest
from fwtrain.infer.policy import Policy
from fwtrain.serve.batching import Batcher
from fwtrain.serve.client import QUIET
from fwtrain.serve.observations import ObservationReader, Request, camera_keys
from fwtrain.serve.stats import Stats
from fwtrain.serve.vla_eval import HarnessSession, ServedAnswer, is_harness, suite_of
from fwtrain.serve.wire import ServerMetadata, pack, unpack


@dataclass(frozen=True)
class Limits:
    """What one client, and all together, may ask of the server."""

    message_bytes: int = 16 << 20
    """Largest message, bytes."""
    clients: int = 32
    """Connections at the same time."""
    rate: float = 100.0
    """Messages per second and client; a faster client is slowed down, not refused."""
    handshake: float = 10.0
    """Seconds a client may take to open a connection."""
    send: float = 20.0
    """Seconds a client may take to receive an answer."""
    ping: float = 20.0
    """Seconds between pings, and to answer one."""
    drain: float = 10.0
    """Seconds that requests under way get when the server stops."""
    harness: float = 900.0
    """Seconds that a client of vla-eval may take to answer a ping, while its simulator sets up a scene."""


@dataclass
class PolicyServer:
    """Serves one policy.

    Requests that carry an Origin header, as browsers' do, are refused.
    """

    policy: Policy
    """What is served."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine only."""
    port: int = 8000
    """TCP port; 0 takes a free one."""
    token: str | None = field(default=None, repr=False)
    """What clients must send as `Authorization: Api-Key TOKEN` (or Bearer); None lets everybody in."""
    execute: int | None = None
    """Actions of a chunk that are sent; None: what the run's recipe says."""
    steps: int = 10
    """Denoising steps."""
    seed: int = 42
    """Seed of requests that carry none."""
    max_batch: int = 8
    """Requests computed together at most; see `Batcher`."""
    window: float = 0.005
    """Seconds to wait for more requests of a batch; see `Batcher`."""
    limits: Limits = Limits()
    """What clients may ask."""
    stats: Stats = field(default_factory=Stats)
    """Counts of what was served."""

    def __post_init__(self) -> None:
        horizon = self.policy.info.model.action_horizon
        self._send = self.policy.execute if self.execute is None else self.execute
        if not 1 <= self._send <= horizon:
            raise UsageError(f"--execute must be between 1 and the chunk's {horizon} actions, found {self._send}")
        self._reader = ObservationReader(self.policy.info, self.seed)
        self._active: set[ServerConnection] = set()
        self._computing = 0
        self.address: tuple[str, int] | None = None

    def metadata(self) -> ServerMetadata:
        """What a client receives when it connects."""
        info, sampling = self.policy.info, self.policy.sampling
        return {
            "policy": "fast-wam",
            "variant": info.model.variant,
            "sampling": {
                "steps": self.steps,
                "mode": sampling.mode,
                "video_shift": sampling.video_shift,
                "action_shift": sampling.action_shift,
            },
            "cameras": {name: camera_keys(name)[0] for name in info.manifest.stitch.cameras},
            "camera_size": list(info.manifest.stitch.camera_size),
            "state_names": list(info.state.names),
            "action_names": list(info.action.names),
            "action_horizon": info.model.action_horizon,
            "execute": self._send,
            "fps": info.fps,
            "gripper_sign": list(self.policy.deploy.gripper_sign),
            "gripper_clip": list(self.policy.deploy.gripper_clip),
            "scaling": scaling_digest(info),
            "weights": self.policy.weights,
        }

    def warm_up(self) -> None:
        """Load the encoders and act once, so that a mistake shows before anybody connects.

        On a GPU once for every number of requests that may be computed together: each has its own CUDA graph, which
        would otherwise be captured while clients wait.
        """
        info = self.policy.info
        size = (*info.manifest.stitch.camera_size, 3)
        blank = {name: np.zeros(size, np.uint8) for name in info.manifest.stitch.cameras}
        middle = info.state.normaliser().invert(np.zeros(len(info.state.names), np.float32))
        seen = self.policy.encode(Observation(blank, middle, "warm up"))
        graphs = self.policy.model.graphs
        if graphs is not None:
            graphs.most = max(graphs.most, self.max_batch)
        for count in range(1, self.max_batch + 1 if self.policy.model.device.type == "cuda" else 2):
            self.policy.act_batch([seen] * count, [0] * count, steps=self.steps)

    async def run(self, stop: asyncio.Event, ready: Callable[[str, int], None] = lambda host, port: None) -> None:
        """Listen until `stop` is set; requests under way are then answered first. ready: called with host and port.

        Raises UsageError when the address is not available.
        """
        batcher = Batcher(
            self.policy, steps=self.steps, max_batch=self.max_batch, window=self.window,
            limit=2 * self.limits.clients, clients=lambda: len(self._active),
        )  # fmt: skip
        working = asyncio.create_task(batcher.run())
        try:
            server = await self._listen(batcher)
            host, port = server.sockets[0].getsockname()[:2]
            self.address = (host, port)
            ready(host, port)
            await stop.wait()
            await self._close(server)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    async def _listen(self, batcher: Batcher) -> Server:
        limits = self.limits
        try:
            return await serve(
                lambda connection: self._client(connection, batcher),
                self.host,
                self.port,
                process_request=self._admit,
                create_connection=_limited(4 * limits.clients),
                origins=[None],
                compression=None,  # a compressed bomb cannot expand
                max_size=limits.message_bytes,
                max_queue=1,
                open_timeout=limits.handshake,
                ping_interval=limits.ping,
                ping_timeout=limits.ping,
                close_timeout=2.0,
                server_header=None,
                logger=QUIET,
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"cannot listen on {self.host}:{self.port} ({reason}); choose another --port") from None

    async def _close(self, server: Server) -> None:
        server.close(close_connections=False)
        until = time.monotonic() + self.limits.drain
        while self._computing and time.monotonic() < until:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(item.close(1001, "the server stops") for item in list(self._active)))
        await server.wait_closed()

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """None to go on with the handshake, else the HTTP answer."""
        path = request.path.partition("?")[0]
        if path in ("/healthz", "/health"):
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self.token is not None and not _holds(request.headers.get_all("Authorization"), self.token):
            self.stats.refused += 1
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "authentication required: send Authorization: Api-Key TOKEN\n"
            )
        if len(self._active) >= self.limits.clients:
            self.stats.refused += 1
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients; try again later\n")
        if is_harness(path):
            try:
                suite_of(path)
            except UsageError as error:
                return connection.respond(http.HTTPStatus.NOT_FOUND, f"{error}\n")
            connection.ping_timeout = self.limits.harness
        return None

    async def _client(self, connection: ServerConnection, batcher: Batcher) -> None:
        """One client, until it leaves."""
        if len(self._active) >= self.limits.clients:
            await connection.close(1013, "too many clients")
            return
        self._active.add(connection)
        pace, previous = _Pace(self.limits.rate), 0.0
        harness = self._harness(connection, batcher)
        try:
            if harness is None:
                await connection.send(pack(self.metadata()))
            async for message in connection:
                began = time.perf_counter()
                self._computing += 1
                try:
                    if harness is not None:
                        found = await harness.answer(message)
                    else:
                        answer = await self._answer(message, batcher, previous)
                        found = ServedAnswer(answer, asked=True, failed=isinstance(answer, str))
                    if found.data is not None:
                        async with asyncio.timeout(self.limits.send):
                            await connection.send(found.data)
                finally:
                    self._computing -= 1
                previous = time.perf_counter() - began
                if found.asked or found.failed:
                    self.stats.add(previous, failed=found.failed)
                await pace.wait()
        except (ConnectionClosed, TimeoutError):
            self.stats.lost += 1
        finally:
            self._active.discard(connection)
            if connection.state is State.OPEN:  # it takes its answers too slowly
                connection.transport.abort()

    def _harness(self, connection: ServerConnection, batcher: Batcher) -> HarnessSession | None:
        """The session of a client that came by vla-eval's path."""
        path = "" if connection.request is None else connection.request.path.partition("?")[0]
        if not is_harness(path):
            return None

        async def act(request: Request) -> Float32:
            answer = await batcher.act(request)
            self.stats.batched(answer.batch)
            return answer.actions

        return HarnessSession(self.policy.info, self._reader, act, self._send, suite_of(path), self.metadata())

    async def _answer(self, message: str | bytes, batcher: Batcher, previous: float) -> str | bytes:
        """Binary actions, or one sentence."""
        began = time.perf_counter()
        try:
            request = self._read(message)
            answer = await batcher.act(request)
        except FwdataError as error:
            return str(error)
        self.stats.batched(answer.batch)
        timing = {"infer_ms": 1e3 * (time.perf_counter() - began)}
        if previous:
            timing["prev_total_ms"] = 1e3 * previous
        warning = self.policy.unusual(request.observed.state)
        return pack(
            {
                **({} if warning is None else {"warnings": [warning]}),
                "actions": answer.actions[: self._send],
                "server_timing": timing,
                "policy_timing": {"infer_ms": 1e3 * answer.seconds, "batch": answer.batch},
            }
        )

    def _read(self, message: str | bytes) -> Request:
        if isinstance(message, str):
            raise UsageError("an observation is a binary message (msgpack), found text")
        return self._reader.read(unpack(message))


class _Pace:
    """Lets `rate` messages per second through, a second's worth at once, by waiting."""

    def __init__(self, rate: float) -> None:
        self._rate, self._allowance, self._last = rate, rate, time.monotonic()

    async def wait(self) -> None:
        now = time.monotonic()
        self._allowance = min(self._rate, self._allowance + (now - self._last) * self._rate) - 1
        self._last = now
        if self._allowance < 0:
            await asyncio.sleep(-self._allowance / self._rate)


def _holds(headers: list[str], token: str) -> bool:
    """Whether an Authorization header has the token; takes equally long wherever a wrong one differs."""
    kind, _, found = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    return hmac.compare_digest(found.strip().encode(), token.encode()) and kind in _SCHEMES


_SCHEMES = ("Api-Key", "Bearer")


def _limited(sockets: int) -> type[ServerConnection]:
    """Connections of which at most `sockets` may be open, handshakes under way included; more are dropped at once."""
    open_now = 0

    class Connection(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal open_now
            open_now += 1
            super().connection_made(transport)
            if open_now > sockets:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            nonlocal open_now
            open_now -= 1
            super().connection_lost(exc)

    return Connection


@contextmanager
def background(server: PolicyServer) -> Iterator[tuple[str, int]]:
    """Run a server in a thread; gives (host, port). For notebooks, tests and measurements. port=0 takes a free one."""
    loop, stop, up = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(server.run(stop, lambda host, port: up.set()))
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            failed.append(error)
        finally:
            up.set()
            loop.close()

    thread = threading.Thread(target=work, name="policy-server", daemon=True)
    thread.start()
    up.wait()
    try:
        if failed:
            raise failed[0]
        assert server.address is not None
        yield server.address
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
    if failed:
        raise failed[0]
