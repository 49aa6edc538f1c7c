"""One run on several processes, through PyTorch's own launcher:

    torchrun --nproc-per-node 8 -m fwtrain run STORE --recipe R --out OUT --set parallel=fsdp

Every process computes an equal share of every batch (see `fwtrain.train.passes`), so that the windows, the noise and
the losses of a step do not depend on how many there are. ddp: `DistributedDataParallel`, every process holds the whole
model. fsdp: `fully_shard` (FSDP2) of every layer and of the rest; weights, gradients, float32 masters and moments are
split along the first axis. The process of rank 0 alone writes logs and messages; of checkpoints each writes its own
rows, see `fwtrain.train.shards`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from fwdata.errors import FwdataError, UsageError
from fwtrain.ending import left_behind
from fwtrain.model import FastWAM

type Mode = Literal["ddp", "fsdp"]

PATIENCE = timedelta(minutes=30)
"""How long processes wait for each other before torch ends the run, on GPUs too (NCCL's own limit is 10 minutes, its
watchdog's 8): the first process may verify a checkpoint, write frozen weights or compile while the others wait."""
SAVE_PATIENCE = timedelta(hours=6)
"""The same between the threads that write a checkpoint: nobody else waits for them."""


def world_size() -> int:
    """Processes of this run, as torchrun tells them; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Whether this is the process that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def local_size() -> int:
    """Processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Team:
    """The processes of a run, or one alone."""

    device: torch.device
    """This process's device."""
    rank: int = 0
    """This process's number."""
    size: int = 1
    """Number of processes."""
    mode: Mode = "ddp"
    """"ddp" keeps all weights in every process, "fsdp" splits them."""
    mesh: DeviceMesh | None = None
    """Device mesh that fsdp splits over; None: alone, or ddp."""
    saving: DeviceMesh | None = None
    """The same processes on their CPUs with messages of their own, for checkpoints written while a run goes on."""

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether parameters are split."""
        return self.size > 1 and self.mode == "fsdp"

    def agree(self, flag: bool) -> bool:
        """Whether any process says so. Costs one small message between CPUs, nothing when alone."""
        if self.size == 1:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes)
        return bool(votes)

    def on_first[T](self, do: Callable[[], T]) -> T:
        """`do()` in the first process; its result, or the error it raised, in every one."""
        if self.size == 1:
            return do()
        said: list[Any] = [None, None]
        if self.first:
            try:
                said[0] = do()
            except Exception as error:  # noqa: BLE001 - raised again below, everywhere
                said[1] = error
        dist.broadcast_object_list(said)
        if said[1] is not None:
            raise said[1]
        return cast(T, said[0])

    def everywhere(self, do: Callable[[], object]) -> None:
        """`do()` in every process; where it raises an FwdataError in any, the first of these errors in every one."""
        if self.size == 1:
            do()
            return
        own: FwdataError | None = None
        try:
            do()
        except FwdataError as error:
            own = error
        errors: list[FwdataError | None] = [None] * self.size
        dist.all_gather_object(errors, own)
        first = next((error for error in errors if error is not None), None)
        if first is not None:
            raise first

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def norm(self, local: Tensor) -> Tensor:
        """Norm of all gradients from the norm of those this process holds (0-d float32)."""
        if not self.sharded:
            return local
        squared = local.square()
        dist.all_reduce(squared)
        return squared.sqrt()

    def distribute(self, model: FastWAM, *, every_tensor: bool = False) -> nn.Module:
        """What to call with `losses` for a forward pass whose backward pass leaves averaged gradients in `model`'s
        parameters. Everything else that reads parameters is a call of the model itself: see `FastWAM.forward`.

        every_tensor: whether every pass gives every trained tensor a gradient, which spares ddp the search for those
        without.
        """
        if self.size == 1:
            return model
        if not self.sharded:
            from torch.nn.parallel import DistributedDataParallel

            return DistributedDataParallel(
                model, find_unused_parameters=not every_tensor, gradient_as_bucket_view=True, broadcast_buffers=False
            )
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)  # sums over processes, also of bf16 gradients
        for expert in (model.video, model.action):
            for block in expert.layers:
                fully_shard(block, mesh=self.mesh, mp_policy=policy)
        fully_shard(model, mesh=self.mesh, mp_policy=policy)
        model.sharded = True
        return model

    @contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """A pass of a step: ddp sends gradients with the last one only; fsdp adds to its shard after each."""
        if self.size == 1 or self.sharded or last:
            yield
            return
        with cast(Any, wrapped).no_sync():
            yield

    @contextmanager
    def gathered(self, model: FastWAM) -> Iterator[None]:
        """The whole model in every process, for sampling; costs its size in memory under fsdp."""
        if not self.sharded:
            yield
            return
        from torch.distributed.fsdp import FSDPModule

        parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()
                part.set_reshard_after_forward(part is not parts[0], recurse=False)

    def share(self, length: int) -> slice:
        """This process's rows of `length`, as `fully_shard` splits them."""
        rows = -(-length // self.size)
        return slice(min(self.rank * rows, length), min((self.rank + 1) * rows, length))

    def held(self, shape: tuple[int, ...]) -> slice:
        """The rows of a tensor of `shape` that this process holds: its share, or all when nothing is split."""
        length = shape[0] if shape else 0
        return self.share(length) if self.sharded else slice(0, length)

    def whole(self, part: Tensor, shape: torch.Size) -> Tensor:
        """The tensor that the processes' parts make, of `shape`; every process has to ask."""
        if not self.sharded or part.ndim == 0:
            return part
        rows = -(-shape[0] // self.size)
        padded = part.new_zeros(rows, *shape[1:])
        padded[: len(part)] = part
        gathered = part.new_empty(rows * self.size, *shape[1:])
        dist.all_gather_into_tensor(gathered, padded)
        return gathered[: shape[0]]


def local(tensor: Tensor) -> Tensor:
    """The part of a parameter or gradient that this process holds, sharing its memory."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextmanager
def join(mode: Mode, device: torch.device) -> Iterator[Team]:
    """The processes torchrun started, joined until the block ends; this one alone without torchrun.

    On GPUs each process takes the one of its local rank. Raises UsageError where a machine has too few.
    """
    size = world_size()
    if size == 1:
        yield Team(device)
        return
    if device.type == "cuda":
        place = int(os.environ.get("LOCAL_RANK", "0"))
        if place >= torch.cuda.device_count():
            raise UsageError(
                f"this machine has {torch.cuda.device_count()} GPUs, torchrun started process {place + 1} on it; "
                "lower --nproc-per-node"
            )
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    if device.type == "cuda":
        os.environ.setdefault("TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", str(int(PATIENCE.total_seconds())))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        mesh = init_device_mesh(device.type, (size,)) if mode == "fsdp" else None
        group = dist.new_group(backend="gloo", timeout=SAVE_PATIENCE)
        saving = DeviceMesh.from_group(group, "cpu")
        yield Team(device, dist.get_rank(), size, mode, mesh, saving)
    finally:
        if not left_behind():  # it would be waited for
            dist.destroy_process_group()
