"""Observation to action chunk: the transforms of training, inverted, around a trained model.

cameras --stitch--> image   --VAE--> first-frame latent ─┐
instruction --prompt, text encoder (once)--> context ─────┤ model ──> normalised chunk ──> robot units
state --normalise--> proprioception ──────────────────────┘
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.envs.base import Observation
from fwdata.errors import UsageError, did_you_mean
from fwdata.images.stitch import stitch
from fwdata.normalise import Float32
from fwtrain.data.usual import UsualValues
from fwtrain.infer.about import weights_digest
from fwtrain.infer.prompts import FOLDER, PaddedEncoder
from fwtrain.model import Denoising, FastWAM, Graphs, Instruction, Noise, sample
from fwtrain.model.sampling import USUAL
from fwtrain.recipe import DeployRecipe
from fwtrain.train.build import build_model, compile_model
from fwtrain.train.folder import RunFolder, RunInfo
from fwtrain.train.run import choose_device
from fwtrain.train.weights import load_trained
from fwtrain.weights.cache_vae import cache_vae

LOG = logging.getLogger("fwtrain.infer")

WARNINGS_LOGGED = 20
"""Different sets of unusual dimensions that a policy logs."""

PROMPTS_KEPT = 256
"""Embedded instructions a policy remembers, 1 MiB each at the published size."""


INSTRUCTIONS_KEPT = 16
"""Instructions whose text keys stay on the device, about 22 MB each at the published size."""


class FrameEncoder(Protocol):
    """What a policy asks of the VAE: uint8 [H, W, 3] RGB to float16 [C, 1, h, w]."""

    def encode_first(self, frame: NDArray[np.uint8]) -> NDArray[np.float16]: ...


class PromptEncoder(Protocol):
    """What a policy asks of the text encoder: [L, Dt] of a full prompt, zero rows past its length."""

    def embedding(self, prompt: str) -> NDArray[Any]: ...


@dataclass(frozen=True)
class LatentObserved:
    """One observation after the encoders."""

    first: NDArray[Any]
    """float [C, h, w], latent of the stitched image."""
    context: NDArray[Any]
    """float [L, Dt], text embedding, zero rows past the prompt's length."""
    state: Float32
    """float32 [Ds], robot units."""


class Policy:
    """A trained model with everything around it. Make it with `Policy.load`.

    Encoders are loaded at the first observation that needs them; text is encoded once per instruction, and kept in the
    folder `prompts` where one is given. weights: which weights the model has (`fwtrain.infer.about.weights_digest`),
    for those who compare results; None where nobody knows. Noise comes from the seed of each call alone, so an action
    does not depend on what else is in its batch beyond float32 round-off.
    On a GPU the action loop of all variants but joint is a CUDA graph per batch size (`fwtrain.model.graphs`).
    """

    def __init__(
        self,
        model: FastWAM,
        info: RunInfo,
        *,
        vae: FrameEncoder | str | None = None,
        text: PromptEncoder | None = None,
        deploy: DeployRecipe | None = None,
        sampling: Denoising = USUAL,
        prompts: Path | None = None,
        weights: str | None = None,
    ) -> None:
        self.model = model.eval()
        if model.device.type == "cuda":
            model.graphs = Graphs()
        self.info = info
        self.weights = weights
        self.deploy = deploy or DeployRecipe()
        check_deploy(self.deploy, info)
        self.sampling = settled_sampling(sampling, info)
        unfit = info.student_warning(self.sampling.steps)
        if unfit is not None:
            LOG.warning("%s", unfit)
        self._vae: FrameEncoder | None = None if isinstance(vae, str) else vae
        self._vae_spec = vae if isinstance(vae, str) else None
        self._text = text
        self._prompts = prompts
        self._contexts: dict[str, NDArray[Any]] = {}
        self._remembering, self._encoding = threading.Lock(), threading.Lock()
        self._read: dict[bytes, Instruction] = {}
        self._state, self._action = info.state.normaliser(), info.action.normaliser()
        self._usual = UsualValues(info.state.names, self._state, info.manifest.normalisation.mode)
        self._warned: set[bytes] = set()

    @classmethod
    def load(
        cls,
        run: str | Path,
        vae: FrameEncoder | str | None = None,
        *,
        text: PromptEncoder | None = None,
        checkpoint: str = "last",
        untrained: bool = False,
        seed: int = 0,
        device: str = "auto",
        compiled: bool = False,
        sampling: Denoising = USUAL,
    ) -> Policy:
        """The policy of one of a run's checkpoints: "last", "best" by validation, or a step.

        vae: a loaded VAE or what `fwdata.encode.vae.wan.load_vae` takes; None = the one of the run's latents.
        untrained: the same architecture with fresh weights from `seed` (no checkpoint is needed). compiled: layers
        through `torch.compile`; the first call waits for the compiler, and so do later ones of new shapes. sampling:
        mode, steps and shifts; the run's own where it says None. Raises UsageError when `run` is not a run folder or
        `sampling` does not fit it, CheckpointError when it has no complete checkpoint.
        """
        folder = RunFolder(Path(run))
        info = folder.info()
        settled_sampling(sampling, info)  # says what is wrong before weights are read
        where = choose_device(device)
        if untrained:
            model, weights = build_model(info.model, seed, where), f"untrained, seed {seed}"
        else:
            found = folder.need_checkpoint(checkpoint)
            model, weights = load_trained(folder, found, where), weights_digest(found)
        if compiled:
            compile_model(model)
        return cls(
            model,
            info,
            vae=vae,
            text=text,
            deploy=folder.recipe().deploy,
            sampling=sampling,
            prompts=folder.path / FOLDER,
            weights=weights,
        )

    @property
    def action_names(self) -> tuple[str, ...]:
        """One name per action dimension."""
        return self.info.action.names

    @property
    def execute(self) -> int:
        """Actions of a chunk that are carried out before the next observation, as the run's recipe says."""
        return self.deploy.execute or self.info.model.action_horizon

    @property
    def gripper_sign(self) -> tuple[int, ...]:
        """Dimensions that `commands` sends as -1 open / +1 closed."""
        return self.deploy.gripper_sign

    @property
    def arithmetic(self) -> str:
        """Kind of number and of device that it computes with, as `float32 on cpu`: other ones round otherwise."""
        weight = self.model.action.head.weight
        return f"{str(weight.dtype).removeprefix('torch.')} on {weight.device.type}"

    def commands(self, chunk: Float32) -> Float32:
        """float32 [..., a] as the robot takes it, from actions in the store's units: the recipe's gripper rules.

        `act` and `act_batch` give the store's units, which recorded actions have too; a robot is sent what comes from
        here. Source of the sign rule: experiments/libero/eval_libero_single.py of the official release.
        """
        sign, clip = list(self.deploy.gripper_sign), list(self.deploy.gripper_clip)
        sent = chunk.copy()
        sent[..., sign] = np.sign(1 - 2 * chunk[..., sign])
        sent[..., clip] = np.clip(chunk[..., clip], 0, 1)
        return sent

    def act(
        self,
        cameras: Mapping[str, NDArray[np.uint8]],
        state: Float32,
        instruction: str,
        *,
        seed: int = 0,
        steps: int | None = None,
    ) -> Float32:
        """float32 [A, a] in the robot's units for one observation; see `act_batch`."""
        chunk: Float32 = self.act_batch([Observation(cameras, state, instruction)], [seed], steps=steps)[0]
        return chunk

    def act_batch(
        self, observations: Sequence[Observation | LatentObserved], seeds: Sequence[int], *, steps: int | None = None
    ) -> Float32:
        """float32 [B, A, a] in the robot's units; one seed per observation, encoded already or not.

        steps: denoising steps, None for those of `sampling`. Raises UsageError for a camera that is missing or a state
        of another width. Cost: one VAE frame per observation that is not encoded (one for an object that occurs several
        times), and what `fwtrain.model.sample` says.
        """
        seen = {id(item): item for item in observations}
        known = {key: self.encode(item) if isinstance(item, Observation) else item for key, item in seen.items()}
        encoded = [known[id(item)] for item in observations]
        for item in encoded:
            self._check_state(item.state)
            self.unusual(item.state)
        weight = self.model.action.head.weight

        def tensor(rows: list[NDArray[Any]]) -> torch.Tensor:
            return torch.from_numpy(np.stack(rows).astype(np.float32)).to(weight.device, weight.dtype)

        how = self.sampling if steps is None else replace(self.sampling, steps=steps)
        with torch.inference_mode():
            found = sample(
                self.model,
                tensor([item.first for item in encoded]),
                [self._instruction(item.context) for item in encoded],
                tensor([self._state.apply(item.state) for item in encoded]),
                self._noise(seeds),
                how,
                video=False,
            )
        return self._action.invert(found.action.float().cpu().numpy())

    def _instruction(self, context: NDArray[Any]) -> Instruction:
        """Every layer's text keys of an embedding [L, Dt], made once for the latest `INSTRUCTIONS_KEPT`."""
        key = hashlib.blake2b(np.ascontiguousarray(context).tobytes(), digest_size=16).digest()
        found = self._read.pop(key, None)
        if found is None:
            found = self.model.read_instruction(torch.from_numpy(np.asarray(context, np.float32)))
        self._read[key] = found  # the latest used last
        if len(self._read) > INSTRUCTIONS_KEPT:
            del self._read[next(iter(self._read))]
        return found

    def encode(self, observation: Observation) -> LatentObserved:
        """Stitch and encode the cameras, look up the instruction."""
        spec = self.info.manifest.stitch
        for name in spec.cameras:
            if name not in observation.cameras:
                raise UsageError(f"the observation lacks camera {name!r}{did_you_mean(name, observation.cameras)}")
        self._check_state(observation.state)
        image = stitch({name: observation.cameras[name][None] for name in spec.cameras}, spec)[0]
        latent = self._frame_encoder().encode_first(image)[:, 0]
        return LatentObserved(latent, self.context(observation.instruction), observation.state)

    def context(self, instruction: str) -> NDArray[Any]:
        """[L, Dt] embedding of an instruction; the latest `PROMPTS_KEPT` are remembered. Any thread may call it."""
        with self._remembering:
            found = self._contexts.get(instruction)
        if found is None:
            with self._encoding:
                found = self._prompt_encoder().embedding(self.info.manifest.render_prompt(instruction))
        with self._remembering:
            self._contexts.pop(instruction, None)
            self._contexts[instruction] = found  # the latest used last
            if len(self._contexts) > PROMPTS_KEPT:
                del self._contexts[next(iter(self._contexts))]
        return found

    def remembers(self, instruction: str) -> bool:
        """Whether the embedding of an instruction is in memory."""
        with self._remembering:
            return instruction in self._contexts

    def _check_state(self, state: Float32) -> None:
        names = self.info.state.names
        if np.shape(state) != (len(names),):
            raise UsageError(f"the policy reads a state of {len(names)} dimensions, found shape {np.shape(state)}")

    def unusual(self, state: Float32) -> str | None:
        """A sentence where a state [Ds] lies far outside the training statistics, logged once per set of dimensions.

        The policy acts all the same; what it answers to such a state means little.
        """
        warning = self._usual.warning(state, "the state lies")
        if warning is not None:
            key = self._usual.far(state).tobytes()
            if key not in self._warned and len(self._warned) < WARNINGS_LOGGED:
                self._warned.add(key)
                LOG.warning("%s", warning)
        return warning

    def _noise(self, seeds: Sequence[int]) -> Noise:
        """Starting points per seed, drawn apart so that a sample's noise does not depend on its batch."""
        config = self.model.config
        frames, height, width = config.latent_grid
        actions, videos = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            actions.append(torch.randn(config.action_horizon, config.action_expert.action_dim, generator=generator))
            if config.rules.mode(self.sampling.mode).sampler != "first-frame":
                videos.append(torch.randn(config.video_expert.in_channels, frames, height, width, generator=generator))
        return Noise(torch.stack(actions), torch.stack(videos) if videos else None)

    def _frame_encoder(self) -> FrameEncoder:
        if self._vae is None:
            self._vae = self._load_vae()
        return self._vae

    def _load_vae(self) -> FrameEncoder:
        latents = self.info.latents
        return cache_vae(self._vae_spec or latents.spec, latents.identity, device=str(self.model.device))

    def _prompt_encoder(self) -> PromptEncoder:
        if self._text is None:
            self._text = PaddedEncoder(self.info, self.model.device, self._prompts)
        return self._text


def settled_sampling(sampling: Denoising, info: RunInfo) -> Denoising:
    """With the run's own mode and shifts in place of None. UsageError for what the run's model cannot sample with."""
    try:
        found = sampling.settled(info.model)
    except ValueError as error:
        raise UsageError(f"--mode: {error}") from None
    if found.steps < 1 or not all(0 < (shift or 0) < math.inf for shift in (found.video_shift, found.action_shift)):
        raise UsageError(
            f"sampling needs at least 1 step and shifts above 0, found {found.steps} steps and shifts "
            f"{found.video_shift} (video) and {found.action_shift} (actions)"
        )
    return found


def check_deploy(deploy: DeployRecipe, info: RunInfo) -> None:
    """UsageError for rules that name more actions or dimensions than a chunk has."""
    horizon, names = info.model.action_horizon, info.action.names
    if deploy.execute is not None and deploy.execute > horizon:
        raise UsageError(f"recipe key deploy.execute is {deploy.execute}, the model predicts {horizon} actions at once")
    for key in ("gripper_sign", "gripper_clip"):
        beyond = [dim for dim in getattr(deploy, key) if not 0 <= dim < len(names)]
        if beyond:
            raise UsageError(f"recipe key deploy.{key} names dimension {beyond[0]}, actions have 0..{len(names) - 1}")
