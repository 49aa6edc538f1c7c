"""The C library's settings, which are for worker processes alone."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest

from fwdata.pipeline import memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_kept_in_workers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *setting: calls.append(setting))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(memory, "_own", False)
    memory.keep_freed()
    assert calls == []
    memory.be_worker()
    memory.keep_freed()
    assert calls == [(-1, memory.KEPT), (-3, memory.SMALL)]
    del library.mallopt  # another C library
    memory.keep_freed()
