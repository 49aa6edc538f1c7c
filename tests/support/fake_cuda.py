"""Operations on fake CUDA tensors that a GPU would make the host wait for."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.masked_select.default"}
INDEXING = {"aten.index.Tensor", "aten.index_put.default", "aten.index_put_.default", "aten._index_put_impl_.default"}
"""They copy indices that lie on the CPU, and wait."""


def devices(tree: object) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}


class Waits(TorchDispatchMode):
    """Collects operations that make the host wait for the device, or copy between them without `non_blocking`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        crosses = {"cpu", "cuda"} <= devices((args, kwargs, out))
        copies = str(func) in {"aten._to_copy.default", "aten.copy_.default"}
        blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True))
        moved = str(func) in INDEXING and args[0].device.type == "cuda" and "cpu" in devices(args[1])
        if str(func) in READS or moved or (copies and crosses and blocking):
            self.found.append(f"{func} {[tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]}")
        return out
