"""Fast-WAM: the parameters under their official names.

What is computed with them are functions of the model: `fwtrain.model.training.losses`, `fwtrain.model.sampling.sample`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Concatenate, cast

import torch
from torch import Tensor, nn

from fwtrain.batch import used_rows
from fwtrain.model.blocks import Linear, TensorPlacement
from fwtrain.model.config import ModelConfig
from fwtrain.model.experts import ActionExpert, VideoExpert, action_layer, video_layer
from fwtrain.model.graphs import Graphs
from fwtrain.model.text import Instruction, Text, merged_text

RECOMPILES = 64
"""Graphs that one layer function may be compiled to in a process."""


class FastWAM(nn.Module):
    """The world-action model of a ModelConfig, with random weights from `seed`.

    Parameters are named mixtures.video.*, mixtures.action.*, proprio_encoder.* as in the official release.
    seed: None leaves the weights uninitialised, for loading. dtype: of the parameters; norms' statistics, times,
    rotations and losses are float32 in any case. Set `gradient_checkpointing = True` to recompute layers in backward.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        seed: int | None = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.config = config
        self.video_frozen = False
        self.sharded = False  # whether processes share the layers' parameters and have to call them equally often
        self.graphs: Graphs | None = None  # where set, the action loop of a chunk is replayed as a CUDA graph
        place = TensorPlacement(device=device, dtype=dtype)
        video, action = VideoExpert(config.video_expert, place), ActionExpert(config.action_expert, place)
        self.mixtures = nn.ModuleDict({"video": video, "action": action})
        width = config.proprio_dim
        self.proprio_encoder = None if width is None else Linear(width, config.video_expert.text_dim, **place)
        if seed is not None:
            place_of_draws = self.device if self.device.type == "cuda" else "cpu"
            initialise(self, torch.Generator(place_of_draws).manual_seed(seed))

    @property
    def video(self) -> VideoExpert:
        """The video expert."""
        return cast(VideoExpert, self.mixtures["video"])

    @property
    def action(self) -> ActionExpert:
        """The action expert."""
        return cast(ActionExpert, self.mixtures["action"])

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.action.head.weight.device

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in the backward pass instead of kept."""
        return self.video.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        self.video.gradient_checkpointing = self.action.gradient_checkpointing = on

    def freeze_video(self) -> None:
        """Make the video expert a fixed feature extractor: no gradients into it or through it, no video loss."""
        self.video.requires_grad_(False)
        self.video_frozen = True

    def compile_layers(self, **options: Any) -> None:
        """Run every layer through `torch.compile` with these options; all layers of an expert share one graph.

        Raises the process's recompile limit to `RECOMPILES`: a layer is compiled again for prompt lengths, batches with
        and without future latents, and sampling; at torch's own limit of 8 the rest would run eagerly without a word.
        """
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, RECOMPILES)
        for expert, layer in ((self.video, video_layer), (self.action, action_layer)):
            expert.compiled[layer.__name__] = torch.compile(layer, **options)

    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward[**P, R](self, work: Callable[Concatenate[FastWAM, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`work(self, *args, **kwargs)`: `losses`, `sample` or another function of the model, as a call of the module.

        Wrappers that act on calls (DistributedDataParallel, `fully_shard`) see every use of the parameters this way.
        """
        return work(self, *args, **kwargs)

    def full_context(self, context: Tensor, proprio: Tensor, used: int | None = None) -> Text:
        """Text rows [B, L, Dt], zero rows as ordinary keys, and the proprioception token if the model has one.

        used: rows before the zero rows that all samples end with, where it is known (`Batch.text_rows`).
        """
        dtype = self.action.head.weight.dtype
        if self.proprio_encoder is None:
            return merged_text(context.to(dtype), None, used)
        return merged_text(context.to(dtype), self.proprio_encoder(proprio.to(dtype)).unsqueeze(1), used)

    @torch.no_grad()
    def read_instruction(self, context: Tensor) -> Instruction:
        """The text embedding and cross-attention keys of one instruction [L, Dt], to be given to sampling in its place.

        Exact: text rows know nothing of each other or of the state, whose row is read in every call. Waits for the
        device once, to learn how many rows are in use.
        """
        weight = self.action.head.weight
        rows = used_rows(context.unsqueeze(0))
        kept = torch.cat([context[:rows], torch.zeros_like(context[:1])]).unsqueeze(0)
        text = Text(kept.to(weight.device, weight.dtype))
        return Instruction(self.video.text_keys(text), self.action.text_keys(text), rows, len(context))


def initialise(model: FastWAM, generator: torch.Generator) -> None:
    """Random weights, in the order of `named_parameters`, drawn in float32 on the generator's device. A GPU draws other
    numbers than a CPU, 6 B of them in a second in place of 40.

    Norm weights 1, biases 0, modulations normal / sqrt(D), matrices Xavier uniform, but those of the action input and
    output layers and the proprioception encoder uniform in +-1 / sqrt(fan in), torch's default for a Linear.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            value = torch.empty(parameter.shape, device=generator.device)
            if name.endswith("modulation"):
                value.normal_(generator=generator).div_(math.sqrt(parameter.shape[-1]))
            elif parameter.ndim > 1:
                fan_in = parameter[0].numel()
                plain = name.startswith(("mixtures.action.action_encoder", "mixtures.action.head", "proprio_encoder"))
                bound = 1 / math.sqrt(fan_in) if plain else math.sqrt(6 / (fan_in + parameter.shape[0]))
                value.uniform_(-bound, bound, generator=generator)
            else:
                value.fill_(float("norm" in name.rsplit(".", 2)[-2] and name.endswith("weight")))
            parameter.copy_(value)
