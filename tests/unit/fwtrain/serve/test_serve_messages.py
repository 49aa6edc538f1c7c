"""Messages of the policy server: the encoding of openpi's client, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from serving import CAMERAS, STATE, mutations, observation, pictures, small_policy

from fwdata.errors import UsageError
from fwtrain.serve.observations import ObservationReader
from fwtrain.serve.wire import MAX_CONTAINERS, pack, unpack

DTYPES = ("?", "u1", "i1", "<u2", "<i4", ">i4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8")


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and one.tobytes() == other.tobytes()
    return one == other and type(one) is type(other)


@given(st.sampled_from(DTYPES).flatmap(lambda name: arrays.arrays(np.dtype(name), arrays.array_shapes(min_side=0))))
def test_arrays_come_back(array: np.ndarray):
    found = unpack(pack({"a": array, "n": [1, 2.5, None, True, "text", b"bytes"]}))
    assert equal(found["a"], array)
    assert found["n"] == [1, 2.5, None, True, "text", b"bytes"]


def test_bytes_are_those_of_openpis_client():
    """What openpi_client 0.1.2's packb makes of {"a": uint8 [2, 1], "s": float32 scalar}."""
    expected = (
        b"\x82\xa1a\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x02\x07\x08\xc4\x05dtype\xa3|u1\xc4\x05shape\x92\x02\x01"
        b"\xa1s\x83\xc4\r__npgeneric__\xc3\xc4\x04data\xcb?\xf8\x00\x00\x00\x00\x00\x00\xc4\x05dtype\xa3<f4"
    )
    value = {"a": np.array([[7], [8]], np.uint8), "s": np.float32(1.5)}
    assert pack(value) == expected
    found = unpack(expected)
    assert equal(found["a"], value["a"]) and equal(found["s"], value["s"])


def packed(data: Any, dtype: Any, shape: Any) -> bytes:
    return bytes(msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}))


class Runs:
    def __reduce__(self):
        return pytest.fail, ("code from a message ran",)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (packed(pickle.dumps(Runs()), "|O", [1]), "found dtype '|O'"),
        (packed(b"12345678", "<f4,<f4", [1]), "found dtype '<f4,<f4'"),
        (packed(b"12345678", "<M8[s]", [1]), "found dtype '<M8"),
        (packed(b"1" * 16, "<f16", [1]), "found dtype '<f16'"),
        (packed(b"1234", "<f4", [2]), "cannot have 4 bytes"),
        (packed(b"", "<f4", [2**31, 0]), "has shape"),
        (packed(b"1234", "<f4", [-1]), "has shape"),
        (packed(b"1234", "<f4", [1] * 9), "at most 8 sizes"),
        (packed(b"1234", "<f4", [True]), "has shape"),
        (packed("1234", "<f4", [1]), "needs data"),
        (packed(b"1234", "<f4", 1), "needs data"),
        (msgpack.packb({b"__npgeneric__": True, b"data": "x" * 9, b"dtype": "<f4"}), "must be a number, found str"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 1e9, b"dtype": "|u1"}), ""),
        (msgpack.packb([[]] * 200 + [[[]] * 200]), f"more than {MAX_CONTAINERS} lists and maps"),
        (msgpack.packb(list(range(300))), "not msgpack as openpi's client packs it"),
        (b"\xdd\xff\xff\xff\xff", "not msgpack"),
        (b"\x91" * 5000, "not msgpack"),
        (msgpack.packb(msgpack.ExtType(5, b"x")), "not msgpack"),
        (msgpack.packb("text") + b"more", "not msgpack"),
        (b"", "not msgpack"),
        (b"\xa2\xff\xfe", "not msgpack"),
        (pickle.dumps({"a": 1}), "not msgpack"),
    ],
)
def test_what_is_no_observation_is_one_sentence(message: bytes, reason: str):
    with pytest.raises(UsageError) as error:
        unpack(message)
    assert reason in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_mutated_messages_are_read_or_refused():
    reader = ObservationReader(small_policy().info, seed=0)
    outcomes = {"read": 0, "refused": 0}
    for message in mutations(600):
        try:
            reader.read(unpack(message))
            outcomes["read"] += 1
        except UsageError as error:
            assert "\n" not in str(error) and len(str(error)) < 400
            outcomes["refused"] += 1
    assert outcomes["read"] > 20 and outcomes["refused"] > 200, outcomes


@pytest.fixture(scope="module")
def reader() -> ObservationReader:
    return ObservationReader(small_policy().info, seed=42)


def test_every_spelling_of_the_keys(reader: ObservationReader):
    views = pictures(1)
    plain = {"prompt": "go", "observation/state": STATE}
    spellings = [
        {f"observation/{name}": view for name, view in views.items()} | plain,
        {f"observation.images.{name}": view for name, view in views.items()}
        | {"observation.state": STATE, "task": "go"},
        {**views, "state": STATE.astype(np.float64), "prompt": "go"},
        {"images": {name: view.transpose(2, 0, 1) for name, view in views.items()}, "state": STATE, "prompt": "go"},
    ]
    for message in spellings:
        request = reader.read(unpack(pack(message)))
        assert request.seed == 42
        assert request.observed.instruction == "go"
        assert request.observed.state.dtype == np.float32
        assert (request.observed.state == STATE).all()
        for name in CAMERAS:
            assert (request.observed.cameras[name] == views[name]).all()
    assert reader.read(observation(seed=np.int64(7))).seed == 7


FIRST = f"observation/{CAMERAS[0]}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({FIRST: None}, rf"{FIRST} must be a uint8 image \[H, W, 3\], found NoneType"),
        ({FIRST: np.zeros((4, 4, 3), np.float32)}, rf"{FIRST} must be a uint8 image .* found float32 \[4, 4, 3\]"),
        ({FIRST: np.zeros((4, 4), np.uint8)}, rf"{FIRST} must be .* found uint8 \[4, 4\]"),
        ({FIRST: np.zeros((4, 4, 4), np.uint8)}, rf"{FIRST} must be .* found uint8 \[4, 4, 4\]"),
        ({FIRST: np.zeros((0, 4, 3), np.uint8)}, rf"{FIRST} must be .* found uint8 \[0, 4, 3\]"),
        ({FIRST: np.zeros((9000, 1, 3), np.uint8)}, rf"{FIRST} must be .* found uint8 \[9000, 1, 3\]"),
        ({"observation/state": STATE[:7]}, r"observation/state must be an array of 14 numbers, found float32 \[7\]"),
        ({"observation/state": STATE * np.nan}, "observation/state: joint0 is not a finite number"),
        ({"observation/state": STATE.astype(np.float64) * 1e60}, "is not a finite number"),
        ({"observation/state": [0.0] * 14}, "observation/state must be an array of 14 numbers, found list"),
        ({"prompt": " "}, "prompt must be a text of 1 to 2000 characters"),
        ({"prompt": "x" * 2001}, "prompt must be a text of 1 to 2000 characters, found 2001 characters"),
        ({"prompt": 3}, "prompt must be a text .* found int"),
        ({"seed": -1}, "seed must be a whole number from 0, found -1"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(reader: ObservationReader, change: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        reader.read(observation(**change))


def test_a_missing_key_is_named_with_the_nearest(reader: ObservationReader):
    message = observation()
    message["observation/head_camara"] = message.pop(FIRST)
    with pytest.raises(UsageError, match=rf"lacks camera 'head_camera' \(key {FIRST} or .*head_camara"):
        reader.read(message)
    for key, what in (("observation/state", "the state"), ("prompt", "the instruction")):
        message = observation()
        del message[key]
        with pytest.raises(UsageError, match=f"lacks {what}"):
            reader.read(message)
    with pytest.raises(UsageError, match="an observation is a map of keys to values, found list"):
        reader.read([1])
