"""Requests that arrive together are computed together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from fwdata.errors import FwdataError, UsageError
from fwdata.normalise import Float32
from fwtrain.infer.policy import LatentObserved, Policy
from fwtrain.serve.observations import Request

LOG = logging.getLogger("fwtrain.serve")


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    actions: Float32
    """float32 [A, a], as the robot takes them."""
    seconds: float
    """Time of the whole batch."""
    batch: int
    """Requests in the batch."""


class PolicyFailed(FwdataError):
    """The policy raised something unexpected; the message says no more than its type."""


@dataclass(frozen=True)
class _Waiting:
    request: Request
    future: asyncio.Future[Answer]


class Batcher:
    """Collects requests for at most `window` seconds, and not longer than until every client has one waiting.

    One thread computes; while it does, the next batch gathers. A new instruction is encoded in a thread of its own,
    before its request joins a batch. limit: requests that may wait. clients: tells how many are
    connected. A request that fails does not touch the others of its batch.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        steps: int = 10,
        max_batch: int = 8,
        window: float = 0.005,
        limit: int = 64,
        clients: Callable[[], int] = lambda: 1,
    ) -> None:
        import torch

        self._policy, self._steps = policy, steps
        self._max_batch, self._window, self._clients = max_batch, window, clients
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(limit)
        # a new thread starts with torch's default number of threads, not with the one set
        self._thread, self._text_thread = (
            ThreadPoolExecutor(1, name, torch.set_num_threads, (torch.get_num_threads(),))
            for name in ("policy", "text")
        )

    async def act(self, request: Request) -> Answer:
        """The answer to one request. Raises UsageError when it cannot be served, PolicyFailed for our own failure."""
        loop = asyncio.get_running_loop()
        instruction = request.observed.instruction
        if not self._policy.remembers(instruction):  # seconds on a CPU, during which other clients are served
            read = partial(self._policy.context, instruction)
            failed = await loop.run_in_executor(self._text_thread, _attempt, read)
            if isinstance(failed, FwdataError):
                raise failed
        future: asyncio.Future[Answer] = loop.create_future()
        try:
            self._queue.put_nowait(_Waiting(request, future))
        except asyncio.QueueFull:
            raise UsageError("the server is busy, too many requests wait; try again") from None
        return await future

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                items = [item for item in await self._gather() if not item.future.done()]
                if not items:
                    continue
                answers = await loop.run_in_executor(self._thread, self._compute, [item.request for item in items])
                for item, answer in zip(items, answers, strict=True):
                    if item.future.done():
                        continue
                    if isinstance(answer, Answer):
                        item.future.set_result(answer)
                    else:
                        item.future.set_exception(answer)
        finally:
            self._thread.shutdown(wait=True)
            self._text_thread.shutdown(wait=True, cancel_futures=True)

    async def _gather(self) -> list[_Waiting]:
        items = [await self._queue.get()]
        until = time.monotonic() + self._window
        while len(items) < self._max_batch:
            try:
                items.append(self._queue.get_nowait())
                continue
            except asyncio.QueueEmpty:
                left = until - time.monotonic()
            if left <= 0 or len(items) >= self._clients():
                break
            try:
                items.append(await asyncio.wait_for(self._queue.get(), left))
            except TimeoutError:
                break
        return items

    def _compute(self, requests: Sequence[Request]) -> list[Answer | FwdataError]:
        """One answer or error per request, in the policy's thread."""
        began = time.perf_counter()
        answers: list[Answer | FwdataError | None] = [None] * len(requests)
        good: dict[int, LatentObserved] = {}
        for i, request in enumerate(requests):
            encoded = _attempt(partial(self._policy.encode, request.observed))
            if isinstance(encoded, FwdataError):
                answers[i] = encoded
            else:
                good[i] = encoded
        if good:
            chunks = _attempt(partial(self._chunks, list(good.values()), [requests[i].seed for i in good]))
            seconds = time.perf_counter() - began
            for k, i in enumerate(good):
                answers[i] = chunks if isinstance(chunks, FwdataError) else _answer(chunks[k], seconds, len(good))
        return [answer for answer in answers if answer is not None]

    def _chunks(self, observed: Sequence[LatentObserved], seeds: Sequence[int]) -> Float32:
        return self._policy.commands(self._policy.act_batch(observed, seeds, steps=self._steps))


def _answer(actions: Float32, seconds: float, batch: int) -> Answer | FwdataError:
    if not np.isfinite(actions).all():
        return PolicyFailed("the policy's actions are not finite numbers; see the server's log")
    return Answer(actions, seconds, batch)


def _attempt[T](work: Callable[[], T]) -> T | FwdataError:
    try:
        return work()
    except FwdataError as error:
        return error
    except Exception as error:
        LOG.exception("a request failed")
        return PolicyFailed(f"the policy failed with {type(error).__name__}; see the server's log")
