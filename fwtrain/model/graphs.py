"""One function of tensors replayed as a CUDA graph: the action loop's many small kernels in one launch.

At batch 1 an eager action loop is bound by its launches: 310 ms were reported on an H100 (FastWAM issue 34), and 3.3
times less with compilation and a CUDA graph (FastWAM request 43). Shapes do not change from call to call (text is
filled to L rows on a GPU), so the whole loop is captured once and replayed with new contents. Weights are read where
they were when it was captured: change them in place, or make new `Graphs`. The capture itself has not been run on a
GPU yet; everything around it is tested on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GRAPHS_KEPT = 8
"""Captured graphs; each has memory of its own. The one that was not used for longest goes first."""

type Loop = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Captured:
    """A captured call."""

    inputs: list[Tensor]
    """Tensors to write the inputs into."""
    replay: Callable[[], None]
    """Runs the captured work."""
    output: Tensor
    """Tensor to read after `replay`; overwritten by the next one."""


def capture(loop: Loop, inputs: Sequence[Tensor]) -> Captured:
    """Run a loop once, so that kernels are chosen and compiled and tables made, then capture it on copies of inputs."""
    kept = [value.clone() for value in inputs]
    with torch.cuda.device(kept[0].device):  # streams are the current device's, which need not be the model's
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loop(kept)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = loop(kept)
    return Captured(kept, graph.replay, output)


class Graphs:
    """Captured loops by their shapes. Not for gradients, and for one thread at a time.

    most: graphs kept; a server raises it to the batch sizes it warms up.
    """

    def __init__(self, capture: Callable[[Loop, Sequence[Tensor]], Captured] = capture) -> None:
        self._capture = capture
        self.most = GRAPHS_KEPT
        self._kept: dict[Hashable, Captured] = {}

    def run(self, loop: Loop, inputs: Sequence[Tensor], constants: Hashable) -> Tensor:
        """`loop(inputs)`, captured at the first call with these shapes. constants: all else the loop depends on."""
        shapes = tuple((value.shape, value.dtype) for value in inputs)
        key = (shapes, constants, torch.is_inference_mode_enabled())
        found = self._kept.pop(key, None)
        if found is None:
            found = self._capture(loop, inputs)
        self._kept[key] = found  # the latest used last
        if len(self._kept) > self.most:
            del self._kept[next(iter(self._kept))]
        for kept, value in zip(found.inputs, inputs, strict=True):
            kept.copy_(value)
        found.replay()
        return found.output.clone()
