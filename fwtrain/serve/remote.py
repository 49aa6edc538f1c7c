"""A served run in the place of a loaded policy, for closed loops over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fwdata.envs.base import Observation
from fwdata.errors import UsageError
from fwdata.normalise import Float32
from fwtrain.infer.about import scaling_digest
from fwtrain.model import Denoising
from fwtrain.serve.client import PolicyClient
from fwtrain.train.folder import RunFolder, RunInfo


class ServedPolicy:
    """What closed loops ask of a policy, answered by a server of the run `info` is of.

    Sampling (mode, steps, shifts), checkpoint and gripper rules are the server's; weights: what it says of the
    checkpoint, None from older servers. arithmetic: None, a server does not say. Raises UsageError when the server
    sends fewer actions than are to be carried out, or serves another run.
    """

    arithmetic: str | None = None

    def __init__(self, info: RunInfo, client: PolicyClient, execute: int) -> None:
        self.info, self._client = info, client
        _check_server(client.metadata)
        self.sampling = Denoising(**client.metadata.get("sampling", {}))
        self.gripper_sign: tuple[int, ...] = tuple(client.metadata.get("gripper_sign", ()))
        self.weights: str | None = client.metadata.get("weights")
        sent, names = client.metadata["execute"], client.metadata["action_names"]
        variant = client.metadata["variant"]
        if names != list(info.action.names):
            raise UsageError(f"the server's policy has actions {names}, the run {list(info.action.names)}")
        if variant != info.model.variant:
            raise UsageError(f"the server's policy is of variant {variant}, the run of {info.model.variant}")
        own = scaling_digest(info)
        if client.metadata.get("scaling", own) != own:
            raise UsageError("the server serves another run: its statistics of states and actions are not this run's")
        if sent < execute:
            raise UsageError(
                f"the server sends {sent} actions per observation, {execute} are to be carried out: start it with "
                f"fwtrain serve RUN --execute {execute}, or pass --execute {sent}"
            )

    @classmethod
    def connect(cls, run: Path, address: str, execute: int, token: str | None = None) -> ServedPolicy:
        """address: host:port, or a URL like ws://host:port; token: what the server asks for.

        Raises UsageError for anything else, ServerError when nobody answers.
        """
        info = RunFolder(run).info()
        if address.startswith(("ws://", "wss://")):
            return cls(info, PolicyClient(address, token=token), execute)
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise UsageError(f"--server {address!r} is not of the form host:port")
        return cls(info, PolicyClient(host, int(port), token), execute)

    def act_batch(self, observations: Sequence[Observation], seeds: Sequence[int], *, steps: int = 10) -> Float32:
        """float32 [B, n, a]; one message per observation. steps: not looked at."""
        ask = self._client.act
        return np.stack(
            [ask(o.cameras, o.state, o.instruction, seed=s) for o, s in zip(observations, seeds, strict=True)]
        )

    def commands(self, chunk: Float32) -> Float32:
        """The chunk as it is: the server has applied its gripper rules."""
        return chunk


def _check_server(metadata: object) -> None:
    """UsageError when the server is not `fwtrain serve`: openpi's and others say less of their policies."""
    known = {"execute": int, "action_names": list, "variant": str}
    found = metadata if isinstance(metadata, dict) else {}
    for key, kind in known.items():
        if not isinstance(found.get(key), kind):
            raise UsageError(
                f"the server is not a fwtrain serve: its first message has no {key!r}; start one with fwtrain serve RUN"
            )
