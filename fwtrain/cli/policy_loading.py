"""The policy that `fwtrain eval` acts with: of a run's checkpoint, untrained, or behind a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fwdata.errors import UsageError, quoted
from fwtrain.cli._common import PolicyOptions, read_token

if TYPE_CHECKING:
    from fwtrain.infer.trials.plan import Deployed, PolicyAbout
    from fwtrain.model import Denoising


@dataclass(frozen=True)
class PolicyLoading:
    """How the policy is made, as the options say."""

    options: PolicyOptions
    """Of the run's own policy."""
    vae: str | None
    """None: the VAE of the run's latents."""
    untrained: bool
    """Fresh weights instead of the checkpoint's."""
    steps: int | None
    """Denoising steps that were asked for."""
    server: str | None
    """HOST:PORT of the fwtrain serve to ask instead."""
    token_file: Path | None
    """File with the secret of the server."""

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.options.run

    def refuse_unused(self) -> None:
        """UsageError for an option that has no effect beside --server, or without it."""
        if self.server is None:
            if self.token_file is not None:
                raise UsageError("--token-file is the secret of a server: it needs --server")
            return
        asked = self.options
        if asked.mode is not None or asked.shift is not None:
            raise UsageError("--mode and --shift are the server's: give them to fwtrain serve, not with --server")
        given = {
            "--checkpoint": asked.checkpoint != "last", "--device": asked.device != "auto",
            "--vae": self.vae is not None, "--untrained": self.untrained,
        }  # fmt: skip
        for name, is_given in given.items():
            if is_given:
                raise UsageError(f"{name} has no meaning with --server: its policy is loaded already")

    def policy(self, seed: int, steps: int, execute: int) -> tuple[Deployed, Denoising]:
        """The policy and how it samples. seed: of untrained weights."""
        if self.server is not None:
            from fwtrain.serve.remote import ServedPolicy

            self.options.sampling(steps)
            token = None if self.token_file is None else read_token(self.token_file)
            served = ServedPolicy.connect(self.run, self.server, execute, token)
            if self.steps not in {None, served.sampling.steps}:
                raise UsageError(
                    f"--steps {self.steps} has no effect on the server, which takes {served.sampling.steps} denoising "
                    f"steps; start it with fwtrain serve {quoted(self.run)} --steps {self.steps}"
                )
            return served, served.sampling
        own = self.options.load(steps, self.vae, untrained=self.untrained, seed=seed)
        return own, own.sampling

    def checkpoint(self) -> str:
        """Which weights act, for people."""
        from fwtrain.train.folder import RunFolder

        if self.server is not None:
            return "the server's"
        return f"step {RunFolder(self.run).need_checkpoint(self.options.checkpoint).step}"

    def about(self, policy: Deployed, sampling: Denoising, seed: int) -> PolicyAbout:
        """What the policy is, as far as it decides actions."""
        from fwtrain.infer.about import about_policy, checkpoint_weights
        from fwtrain.train.folder import RunFolder

        if self.server is not None:
            return about_policy(policy, sampling, {"checkpoint": "the server's", "weights": policy.weights})
        if self.untrained:
            return about_policy(policy, sampling, {"checkpoint": f"untrained, seed {seed}"})
        found = RunFolder(self.run).need_checkpoint(self.options.checkpoint)
        return about_policy(policy, sampling, checkpoint_weights(found))
