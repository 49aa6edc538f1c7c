"""`fwtrain serve`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import say
from fwdata.errors import UsageError
from fwtrain.cli._common import Compiled, Json, PolicyOptions, Vae, answer, read_token, with_policy_options

if TYPE_CHECKING:
    from fwtrain.serve.server import PolicyServer

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve", epilog="Example: fwtrain serve runs/libero --device cuda --port 8000")(serve_command)


@with_policy_options
def serve_command(
    policy: PolicyOptions,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port, 0 for a free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a secret that clients must send (Authorization: Api-Key ..).")
    ] = None,
    execute: Annotated[
        int | None, typer.Option(help="Actions sent per observation (default: the recipe's deploy.execute).")
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the noise of observations that bring none.")] = 42,
    max_clients: Annotated[int, typer.Option(help="Clients connected at once.")] = 32,
    max_message: Annotated[int, typer.Option(help="Largest message, MiB.")] = 16,
    max_batch: Annotated[int, typer.Option(help="Observations computed together at most.")] = 8,
    vae: Vae = None,
    compiled: Compiled = False,
    as_json: Json = False,
) -> None:
    """Answer observations over a websocket, as openpi's policy server does, until Ctrl-C or SIGTERM.

    openpi's WebsocketClientPolicy connects to it; keys and answers are described in fwtrain/serve/__init__.py.
    """
    token = read_token(token_file) if token_file is not None else None
    if token is None and host not in LOOPBACK:
        raise UsageError(f"--host {host} is open to others: give a --token-file, or listen on 127.0.0.1")
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be 0 .. 65535, found {port}")
    for name, value in (("--max-clients", max_clients), ("--max-message", max_message), ("--max-batch", max_batch)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, found {value}")
    from fwtrain.serve.server import Limits, PolicyServer

    run = str(policy.run)
    server = PolicyServer(
        policy.load(steps, vae, compiled=compiled),
        host=host,
        port=port,
        token=token,
        execute=execute,
        steps=steps,
        seed=seed,
        max_batch=max_batch,
        limits=Limits(clients=max_clients, message_bytes=max_message << 20),
    )
    server.warm_up()
    asyncio.run(_until_signal(server, run))
    data = {"run": run, **server.stats.to_json()}
    answer(data, as_json, lambda: _text(data))


async def _until_signal(server: PolicyServer, run: str) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.run(stop, lambda host, port: say(f"serving {run} on ws://{host}:{port}, health on /healthz"))


def _text(data: dict[str, object]) -> str:
    latency = (
        "no latencies"
        if data["p50_ms"] is None
        else (
            f"latency {data['p50_ms']:.1f} ms median, {data['p95_ms']:.1f} ms p95, {data['p99_ms']:.1f} ms p99, "
            f"{data['mean_batch']:.1f} observations per batch"
        )
    )
    return (
        f"{data['requests']} requests, {data['failed']} answered with a sentence, {data['refused']} clients refused, "
        f"{data['lost']} lost; {latency}"
    )
