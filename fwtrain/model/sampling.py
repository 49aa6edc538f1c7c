"""Sampling by Euler steps, for B observations at once.

Done once per call: the text embedding and every layer's cross-attention keys, the time embeddings and modulations of
all steps, and the video pass that actions attend to (first-frame and video-first samplers), whose last layer stops at
its keys and values. Source: infer_action / infer_joint of src/fastwam/models/wan22/fastwam*.py of the official release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fwtrain.model import flow
from fwtrain.model.blocks import KeyValue, Modulation, Prefix
from fwtrain.model.config import ModelConfig, ScheduleConfig
from fwtrain.model.experts import Expert, Times
from fwtrain.model.rope import action_table
from fwtrain.model.text import Instruction, Text, TextKeys, gathered
from fwtrain.model.training import rope_of, spread
from fwtrain.variants import Frames, Mode

if TYPE_CHECKING:
    from fwtrain.model.fastwam import FastWAM

Observer = Callable[[str, int, Tensor], None]
"""Called with (name, step or layer, value): velocity_action, action, velocity_video, video, cache_k, cache_v."""


@dataclass(frozen=True)
class Noise:
    """The starting points of B observations. What is absent is drawn on the CPU in float32, actions first."""

    action: Tensor | None = None
    """[B, A, a]"""
    video: Tensor | None = None
    """[B, C, F, h, w]; frame 0 is not read"""
    generator: torch.Generator | None = None
    """A CPU generator for what is drawn, None for torch's global one."""

    def actions(self, config: ModelConfig, size: int) -> Tensor:
        """[B, A, a], drawn where absent."""
        if self.action is not None:
            return self.action
        shape = (size, config.action_horizon, config.action_expert.action_dim)
        return torch.randn(shape, generator=self.generator)

    def videos(self, config: ModelConfig, first: Tensor) -> Tensor:
        """[B, C, F, h, w] for first-frame latents [B, C, h, w], drawn where absent."""
        if self.video is not None:
            return self.video
        b, c, h, w = first.shape
        return torch.randn((b, c, config.latent_grid[0], h, w), generator=self.generator)

    def rows(self, rows: slice) -> Noise:
        """Those of some observations; what is absent is still drawn for each call."""
        action, video = (value if value is None else value[rows] for value in (self.action, self.video))
        return replace(self, action=action, video=video)


@dataclass(frozen=True)
class Denoising:
    """How starting points are denoised."""

    steps: int = 10
    """Euler steps of each stream."""
    mode: str | None = None
    """Of the variant's modes; None for the first."""
    video_shift: float | None = None
    """Time shift of the video's grid; None for the one the model was trained with."""
    action_shift: float | None = None
    """Time shift of the actions' grid; None for the one the model was trained with."""

    def shifts(self, schedule: ScheduleConfig) -> tuple[float, float]:
        """(video, action), the schedule's where none is given."""
        given, own = (self.video_shift, self.action_shift), (schedule.video_shift, schedule.action_shift)
        video, action = (default if shift is None else shift for shift, default in zip(given, own, strict=True))
        return video, action

    def settled(self, config: ModelConfig) -> Denoising:
        """With a mode and numbers in place of None. ValueError for a mode that the variant does not have."""
        video, action = self.shifts(config.schedule)
        return replace(self, mode=config.rules.mode(self.mode).name, video_shift=video, action_shift=action)


DRAWN, USUAL = Noise(), Denoising()


@dataclass(frozen=True)
class Sample:
    """What sampling returns."""

    action: Tensor
    """float32 [B, A, a], normalised."""
    latents: Tensor | None
    """float32 [B, C, F, h, w] with the given first frame; None where the mode makes no video or none was asked for."""


@dataclass(frozen=True)
class _Run:
    """One sampling call: the model, the observation, the grids, and what is computed once.

    With instructions, the context holds the state's row alone.
    """

    model: FastWAM
    first: Tensor
    context: Text
    instructions: Sequence[Instruction]
    video_grid: flow.Grid
    action_grid: flow.Grid
    observe: Observer | None

    def note(self, name: str, index: int, value: Tensor) -> None:
        if self.observe is not None:
            self.observe(name, index, value)

    @cached_property
    def video_text(self) -> list[TextKeys]:
        return self._text(self.model.video, [item.video for item in self.instructions])

    @cached_property
    def action_text(self) -> list[TextKeys]:
        return self._text(self.model.action, [item.action for item in self.instructions])

    def _text(self, expert: Expert, read: list[list[TextKeys]]) -> list[TextKeys]:
        """Every layer's keys: of the context, or of instructions read before and the state's row."""
        if not read:
            return expert.text_keys(self.context)
        state = expert.text_keys(self.context) if self.context.rows.shape[1] else None
        return gathered(read, [item.used for item in self.instructions], self.instructions[0].length, state)

    @cached_property
    def first_patches(self) -> Tensor:
        return self.model.video.patchify(self.first.unsqueeze(2))

    @cached_property
    def video_times(self) -> Times:
        """Of all steps and, last, of t = 0."""
        steps = torch.cat([self.video_grid.timesteps, torch.zeros(1, dtype=self.video_grid.timesteps.dtype)])
        return self.model.video.times(steps.to(self.first.device))

    def video_modulations(self, frames: Frames) -> list[list[Modulation]]:
        """[step][layer] modulations: the step's time on the future, 0 on frame 0."""
        steps = len(self.video_grid)
        times = spread(self.video_times, [steps, 1], [frames.future, 1])
        return _by_step(self.model.video.modulations(times.projected, self._dtype))

    def still_modulations(self) -> list[Modulation]:
        """[layer] modulations of t = 0 on every frame."""
        return self.model.video.modulations(self.video_times.projected[-1:].unsqueeze(1), self._dtype)

    @cached_property
    def action_times(self) -> Times:
        """Of all steps."""
        return self.model.action.times(self.action_grid.timesteps.to(self.first.device))

    def action_modulations(self) -> list[list[Modulation]]:
        """[step][layer] modulations of the action expert."""
        return _by_step(self.model.action.modulations(self.action_times.projected.unsqueeze(1), self._dtype))

    @property
    def _dtype(self) -> torch.dtype:
        return self.model.action.head.weight.dtype

    def video_pass(
        self, patches: Tensor, frames: Frames, mods: Sequence[Modulation], seen: tuple[int, int], keep: int
    ) -> tuple[Tensor, list[KeyValue]]:
        table = rope_of(self.model, frames, self.first)
        tokens = self.model.video.embed(patches)
        hidden, cache = self.model.video(tokens, mods, self.video_text, table, frames, seen, keep)
        return hidden, cache


def _by_step(layers: list[Modulation]) -> list[list[Modulation]]:
    """[layer] modulations of [steps, G, 1, D] to [step][layer] modulations of [1, G, 1, D]."""
    cut = [[torch.split(part, 1) for part in layer] for layer in layers]
    return [[Modulation(*(part[i] for part in layer)) for layer in cut] for i in range(len(cut[0][0]))]


def _start(
    model: FastWAM,
    first: Tensor,
    context: Tensor | Sequence[Instruction],
    proprio: Tensor,
    how: Denoising,
    observe: Observer | None,
) -> _Run:
    schedule, device = model.config.schedule, model.device
    grids = [
        flow.euler_grid(how.steps, shift, schedule.num_train_timesteps, schedule.dtype)
        for shift in how.shifts(schedule)
    ]
    known: Sequence[Instruction] = () if isinstance(context, Tensor) else context
    if isinstance(context, Tensor):
        text = context.to(device)
    else:
        if len(known) != len(first) or len({item.length for item in known}) != 1:
            raise ValueError(f"{len(first)} observations need as many instructions of one length, found {len(known)}")
        text = torch.zeros(len(first), 0, model.config.video_expert.text_dim, device=device)
    full = model.full_context(text, proprio.to(device))
    return _Run(model, first.to(device, schedule.dtype), full, known, grids[0], grids[1], observe)


@torch.no_grad()
def sample(
    model: FastWAM,
    first: Tensor,
    context: Tensor | Sequence[Instruction],
    proprio: Tensor,
    noise: Noise = DRAWN,
    how: Denoising = USUAL,
    *,
    video: bool = True,
    observe: Observer | None = None,
) -> Sample:
    """Actions and, with `video`, future latents of B observations; each stream has the grid of its own shift.

    first: [B, C, h, w] normalised first-frame latents; context: [B, L, Dt], or B instructions that were read before
    (`FastWAM.read_instruction`); proprio: [B, p] normalised. observe: called with every step's values.
    Cost by sampler: first-frame one pass over the first frame and `steps` action passes; joint `steps` full passes;
    video-first `steps` + 1 video passes and `steps` action passes; with `video` first-frame `steps` video passes more.
    Raises ValueError for a mode the variant does not have, fewer than one step, or a shift not above 0.
    """
    return sampled(model, first, context, proprio, noise, how, video=video, observe=observe)


def sampled(
    model: FastWAM,
    first: Tensor,
    context: Tensor | Sequence[Instruction],
    proprio: Tensor,
    noise: Noise = DRAWN,
    how: Denoising = USUAL,
    *,
    video: bool = True,
    observe: Observer | None = None,
) -> Sample:
    """`sample` that records gradients where they are enabled, for the attention check."""
    config, mode = model.config, model.config.rules.mode(how.mode)
    run = _start(model, first, context, proprio, how, observe)
    action = noise.actions(config, len(first)).to(model.device, run.first.dtype)
    if mode.sampler == "first-frame":
        _, cache = run.video_pass(run.first_patches, Frames(0), run.still_modulations(), (0, 1), 0)
        action = _denoise_actions(run, action, cache)
        return _sample(action, _denoise_video(run, _later(run, noise)) if video else None)
    state = _later(run, noise)
    if mode.sampler == "joint":
        action, latents = _denoise_jointly(run, action, state, mode, video)
        return _sample(action, latents)
    latents = _denoise_video(run, state)
    patches = torch.cat([model.video.patchify(latents[:, :, 1:]), run.first_patches], 1)
    frames = Frames(state.shape[2])
    _, cache = run.video_pass(patches, frames, run.still_modulations(), frames.span(mode.sees_sampling), 0)
    return _sample(_denoise_actions(run, action, cache), latents)


def _sample(action: Tensor, latents: Tensor | None) -> Sample:
    return Sample(action.float(), None if latents is None else latents.float())


@torch.no_grad()
def sample_video(
    model: FastWAM,
    first: Tensor,
    context: Tensor | Sequence[Instruction],
    proprio: Tensor,
    noise: Noise = DRAWN,
    how: Denoising = USUAL,
    *,
    observe: Observer | None = None,
) -> Tensor:
    """float32 [B, C, F, h, w]: the given first frame and predicted future latents, by any variant trained on video.

    Arguments as of `sample`. The video never depends on actions, so it is sampled alone.
    """
    run = _start(model, first, context, proprio, how, observe)
    return _denoise_video(run, _later(run, noise)).float()


def _later(run: _Run, noise: Noise) -> Tensor:
    """[B, C, F - 1, h, w] in the schedule's type: the later frames of the starting noise."""
    config = run.model.config
    return noise.videos(config, run.first)[:, :, 1:].to(run.model.device, config.schedule.dtype)


def _denoise_actions(run: _Run, action: Tensor, cache: list[KeyValue]) -> Tensor:
    """All Euler steps of the actions against fixed video keys and values; as one CUDA graph where the model has graphs
    and nobody looks at the steps."""
    for i, seen in enumerate(cache):
        run.note("cache_k", i, seen.k)
        run.note("cache_v", i, seen.v)
    biases, layers = [text.bias for text in run.action_text], len(cache)
    deltas = tuple(run.action_grid.deltas.tolist())
    table = action_table(action.shape[1], run.model.config.action_expert.head_dim, action.device)

    def loop(inputs: Sequence[Tensor]) -> Tensor:
        state, times, table, *flat = inputs
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        prefixes = [Prefix.of(KeyValue(k, v), state.shape[1]) for k, v in pairs[:layers]]
        text = [TextKeys(k, v, bias) for (k, v), bias in zip(pairs[layers:], biases, strict=True)]
        steps = _by_step(run.model.action.modulations(times.unsqueeze(1), run.model.action.head.weight.dtype))
        for i, mods in enumerate(steps):
            velocity = run.model.action(state, mods, text, table, prefixes)
            state = flow.euler_step(state, velocity, deltas[i])
            run.note("velocity_action", i, velocity)
            run.note("action", i, state)
        return state

    keys = [*cache, *(KeyValue(text.k, text.v) for text in run.action_text)]
    inputs = [action, run.action_times.projected, table, *(part for pair in keys for part in pair)]
    plain = run.observe is not None or torch.is_grad_enabled() or any(bias is not None for bias in biases)
    graphs = None if plain else run.model.graphs
    return loop(inputs) if graphs is None else graphs.run(loop, inputs, deltas)


def _denoise_video(run: _Run, state: Tensor) -> Tensor:
    """All Euler steps of the later frames; returns all frames [B, C, F, h, w]."""
    frames = Frames(state.shape[2])
    for i, mods in enumerate(run.video_modulations(frames)):
        state, _ = _video_step(run, state, frames, mods, i, (0, 0))
    return torch.cat([run.first.unsqueeze(2), state], 2)


def _video_step(
    run: _Run, state: Tensor, frames: Frames, mods: Sequence[Modulation], i: int, seen: tuple[int, int]
) -> tuple[Tensor, list[KeyValue]]:
    """(later frames after step i, keys and values of the frames `seen`)."""
    expert = run.model.video
    patches = torch.cat([expert.patchify(state), run.first_patches], 1)
    hidden, cache = run.video_pass(patches, frames, mods, seen, frames.future)
    velocity = expert.velocity(hidden, run.video_times.embedded[i].view(1, 1, -1))
    velocity = expert.unpatchify(velocity.to(state.dtype), *state.shape[3:])
    state = flow.euler_step(state, velocity, float(run.video_grid.deltas[i]))
    run.note("velocity_video", i, velocity)
    run.note("video", i, state)
    return state, cache


def _denoise_jointly(run: _Run, action: Tensor, state: Tensor, mode: Mode, video: bool) -> tuple[Tensor, Tensor | None]:
    """All Euler steps of both streams; without `video` the last step leaves the video where it is."""
    frames = Frames(state.shape[2])
    seen = frames.span(mode.sees_sampling)
    table = action_table(action.shape[1], run.model.config.action_expert.head_dim, action.device)
    deltas = run.action_grid.deltas.tolist()
    steps = zip(run.video_modulations(frames), run.action_modulations(), strict=True)
    for i, (video_mods, action_mods) in enumerate(steps):
        if i + 1 < len(deltas) or video:
            state, cache = _video_step(run, state, frames, video_mods, i, seen)
        else:
            patches = torch.cat([run.model.video.patchify(state), run.first_patches], 1)
            _, cache = run.video_pass(patches, frames, video_mods, seen, 0)
        velocity = run.model.action(action, action_mods, run.action_text, table, cache)
        action = flow.euler_step(action, velocity, deltas[i])
        run.note("velocity_action", i, velocity)
        run.note("action", i, action)
    return action, torch.cat([run.first.unsqueeze(2), state], 2) if video else None
