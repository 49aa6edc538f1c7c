"""Figures that tests on a GPU measure: `pytest -m gpu -n 0` prints them as a table when it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
import torch

NAME = os.environ.get("FWTRAIN_TEST_DEVICE", "cuda")
"""Where such tests run; FWTRAIN_TEST_DEVICE=cpu runs the same code, at small sizes, without a GPU, as CI does."""
ON_GPU = NAME == "cuda"
MARKS = [pytest.mark.gpu] if ON_GPU else [pytest.mark.gpu, pytest.mark.slow]

FIGURES: list[tuple[str, str]] = []
"""(what, how much) in the order in which they were measured."""


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The last GPU, so that a second one shows what names no device."""
    if not ON_GPU:
        yield torch.device("cpu")
        return
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    with torch.cuda.device(last):
        torch.cuda.empty_cache()
        yield last


def milliseconds(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Mean time of a call after two that warm up, the device's work included."""
    count = repeats if device.type == "cuda" else 1
    for _ in range(2 if device.type == "cuda" else 0):
        work()
    wait(device)
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait(device)
    return 1e3 * (time.perf_counter() - began) / count


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table() -> str:
    """The figures under the card's name; empty where none were measured."""
    if not FIGURES:
        return ""
    card = torch.cuda.get_device_name(torch.cuda.device_count() - 1) if ON_GPU else "the CPU, small sizes"
    width = max(len(what) for what, _ in FIGURES)
    lines = (f"{what:{width}}  {much}" for what, much in FIGURES)
    return "\n".join([f"measured on {card}, torch {torch.__version__}", *lines])
