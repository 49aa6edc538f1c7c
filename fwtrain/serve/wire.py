"""Messages: msgpack with arrays as openpi_client.msgpack_numpy packs them.

    array    {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [..]}
    scalar   {b"__npgeneric__": True, b"data": value, b"dtype": "<f4"}

With `text_keys`, arrays have text where these have bytes, as vla-eval packs them, and scalars are plain numbers.

Only booleans, integers and floats of 1 to 8 bytes are read; everything is checked before an array is made, and the
number of containers is bounded, so that a message of n bytes takes O(n) memory. Nothing is unpickled.
"""

from __future__ import annotations

import math
import re
from typing import Any, NotRequired, TypedDict

import msgpack
import numpy as np
from numpy.typing import NDArray

from fwdata.errors import UsageError

MAX_CONTAINERS = 256
"""Lists and maps in one message."""
MAX_ENTRIES = 256
"""Entries of one list or map."""
MAX_AXES = 8

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


class SamplingJson(TypedDict, total=False):
    """How a server samples, as `fwtrain.model.Denoising`; a key that an older server does not send is its default."""

    steps: int
    """Denoising steps."""
    mode: str | None
    """Mode of a variant with several; null: its first."""
    video_shift: float | None
    """Shift of the video's grid; null: that of the training."""
    action_shift: float | None
    """Shift of the actions' grid; null: that of the training."""


class ServerMetadata(TypedDict):
    """What a server says of its policy when a client connects."""

    policy: str
    """Kind of policy: "fast-wam"."""
    variant: str
    """Variant of the model."""
    sampling: NotRequired[SamplingJson]
    """How it samples; absent from older servers."""
    cameras: dict[str, str]
    """Camera -> key of its image in an observation."""
    camera_size: list[int]
    """[height, width] of the images the policy was trained on, pixels."""
    state_names: list[str]
    """One name per state dimension."""
    action_names: list[str]
    """One name per action dimension."""
    action_horizon: int
    """Actions of a chunk."""
    execute: int
    """Actions of a chunk that are sent."""
    fps: float
    """Rate that actions are meant for, Hz."""
    gripper_sign: NotRequired[list[int]]
    """Dimensions that are sent as -1 open / +1 closed; absent from older servers."""
    gripper_clip: NotRequired[list[int]]
    """Dimensions that are clipped to 0 .. 1; absent from older servers."""
    scaling: NotRequired[str]
    """16 hex digits of how the run normalises states and actions; absent from older servers."""
    weights: NotRequired[str | None]
    """16 hex digits of the checkpoint's contents, or which random weights; null or absent where nobody knows."""


class ServedActions(TypedDict):
    """What a server answers to one observation."""

    actions: NDArray[np.float32]
    """float32 [n, a], as the robot takes them."""
    server_timing: dict[str, float]
    """Milliseconds: `infer_ms` of this answer, and `prev_total_ms` of the one before it, where there is one."""
    policy_timing: dict[str, float]
    """`infer_ms`, milliseconds of the batch, and `batch`, its number of requests."""


def pack(value: Any, *, text_keys: bool = False) -> bytes:
    """msgpack bytes of plain data with numpy arrays and scalars. TypeError for anything else."""
    data: bytes = msgpack.packb(value, default=_packed_text if text_keys else _packed)
    return data


def _packed(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic) or not _DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"cannot send a {getattr(value, 'dtype', type(value).__name__)}")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def _packed_text(value: Any) -> Any:
    packed = _packed(value)
    return value.item() if isinstance(value, np.generic) else {key.decode(): found for key, found in packed.items()}


def unpack(data: bytes, *, text_keys: bool = False) -> Any:
    """The value of a message; arrays are read-only views of it. UsageError, one sentence, for any other bytes."""
    counter = _Counter(text_keys)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=False,
            object_hook=counter.map,
            list_hook=counter.list,
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
            max_ext_len=0,
        )
    except UsageError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UsageError(f"the message is not msgpack as openpi's client packs it ({reason})") from None


class _Counter:
    """Counts containers of one message and turns packed arrays into numpy's."""

    def __init__(self, text_keys: bool = False) -> None:
        self._seen, self._text_keys = 0, text_keys

    def _count(self) -> None:
        self._seen += 1
        if self._seen > MAX_CONTAINERS:
            raise UsageError(f"the message has more than {MAX_CONTAINERS} lists and maps")

    def list(self, value: list[Any]) -> list[Any]:
        self._count()
        return value

    def map(self, value: dict[Any, Any]) -> Any:
        self._count()
        if self._text_keys:
            return (
                _array({str(key).encode(): found for key, found in value.items()}) if "__ndarray__" in value else value
            )
        if b"__ndarray__" in value:
            return _array(value)
        if b"__npgeneric__" in value:
            number = value.get(b"data")
            if not isinstance(number, bool | int | float):
                raise UsageError(f"a packed scalar must be a number, found {type(number).__name__}")
            return _dtype(value).type(number)
        return value


def _dtype(packed: dict[Any, Any]) -> np.dtype[Any]:
    name = packed.get(b"dtype")
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise UsageError(f"arrays must be of booleans, integers or floats, found dtype {str(name)[:40]!r}")
    return np.dtype(name)


def _array(packed: dict[Any, Any]) -> np.ndarray[Any, Any]:
    dtype, data, shape = _dtype(packed), packed.get(b"data"), packed.get(b"shape")
    if not isinstance(data, bytes) or not isinstance(shape, list):
        raise UsageError("a packed array needs data (bytes) and shape (a list)")
    if len(shape) > MAX_AXES or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise UsageError(f"a packed array has shape {str(shape)[:60]}; expected at most {MAX_AXES} sizes")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise UsageError(f"a packed array of shape {shape} and dtype {dtype} cannot have {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)
