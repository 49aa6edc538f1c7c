"""A client of `fwtrain serve` (and of openpi's policy server) for robot code; needs numpy, msgpack and websockets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from fwdata.errors import FwdataError, UsageError
from fwtrain.serve.wire import ServedActions, ServerMetadata, pack, unpack

QUIET = logging.getLogger("fwtrain.serve.websockets")
QUIET.setLevel(logging.CRITICAL + 1)
"""Of both ends: misbehaving clients are no news, and neither their bytes nor a token belong in a log."""


class ServerError(FwdataError):
    """The server answered with a sentence, or cannot be reached."""


class PolicyClient:
    """One connection. metadata: what the server said of its policy. Not for several threads at once.

    Raises ServerError when the server cannot be reached or refuses the token, UsageError for what is not an address.

        with PolicyClient("127.0.0.1", 8000) as policy:
            actions = policy.act({"image": image, "wrist_image": wrist}, state, "pick up the bowl")
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 8000, token: str | None = None, timeout: float = 60
    ) -> None:
        headers = {"Authorization": f"Api-Key {token}"} if token is not None else None
        address = host if host.startswith(("ws://", "wss://")) else f"ws://{host}:{port}"
        self._timeout = timeout
        try:
            self._socket = connect(
                address, compression=None, max_size=None, additional_headers=headers, open_timeout=timeout, proxy=None,
                logger=QUIET,
            )  # fmt: skip
            self.metadata: ServerMetadata = unpack(_binary(self._socket.recv(timeout)))
        except InvalidStatus as error:
            body = (error.response.body or b"").decode(errors="replace").strip()
            raise ServerError(f"{address} refused the connection: {error.response.status_code} {body}") from None
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ServerError(f"no policy server at {address} ({str(error) or type(error).__name__})") from None
        except ValueError as error:  # a port above 65535, a name that cannot be one
            raise UsageError(f"{address} is not the address of a server: {error}; expected HOST:PORT") from None

    def infer(self, observation: Mapping[str, Any]) -> ServedActions:
        """The server's answer to one observation; see `fwtrain.serve`. Raises ServerError with its sentence."""
        try:
            self._socket.send(pack(dict(observation)))
            answer = self._socket.recv(self._timeout)
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ServerError(f"the policy server is gone ({str(error) or type(error).__name__})") from None
        result: ServedActions = unpack(_binary(answer))
        return result

    def act(
        self,
        cameras: Mapping[str, NDArray[np.uint8]],
        state: NDArray[Any],
        instruction: str,
        *,
        seed: int | None = None,
    ) -> NDArray[np.float32]:
        """float32 [n, a] as the robot takes them. cameras: name -> uint8 [H, W, 3] RGB; state: [Ds]."""
        observation: dict[str, object] = {f"observation/{name}": image for name, image in cameras.items()}
        observation |= {"observation/state": state, "prompt": instruction}
        if seed is not None:
            observation["seed"] = seed
        return self.infer(observation)["actions"]

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _binary(message: str | bytes) -> bytes:
    if isinstance(message, str):
        raise ServerError(message)
    return message
