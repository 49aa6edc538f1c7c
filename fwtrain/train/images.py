"""Predicted futures of held-out windows as images, beside the true ones, both decoded from latents.

Decoding never happens inside a training step: the VAE is loaded at the first validation that shows images, and only
when a recipe asks for them (`validation.pictures`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.errors import UsageError
from fwtrain.batch import Batch
from fwtrain.data import BatchPlan, StoreSource, Stream, WindowReader, derived_seed, trains_video, validation_plans
from fwtrain.model import Denoising, Noise, sample_video
from fwtrain.recipe import Recipe
from fwtrain.train.logs import Picture
from fwtrain.weights.cache_vae import cache_vae

if TYPE_CHECKING:
    from fwtrain.model import FastWAM

HEIGHT = 192
"""Frames are enlarged by whole numbers up to about this height, or shrunk to it."""


class FrameDecoder(Protocol):
    """What images ask of the VAE: float [C, F, h, w] to uint8 [frames, H, W, 3]."""

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]: ...


class FutureImages:
    """Makes the images of a run's validations: the same windows and noise every time.

    decoder: a loaded VAE; None = the one of the latent cache, loaded when first needed.
    """

    def __init__(
        self, source: StoreSource, recipe: Recipe, device: torch.device, decoder: FrameDecoder | None = None
    ) -> None:
        self._source, self._recipe, self._device = source, recipe, device
        self._decoder = decoder
        self._count = recipe.validation.pictures
        self._found = validation_plans(source, recipe) if self._count else None

    def make(self, model: FastWAM, note: Callable[[str], None] = lambda _: None) -> list[Picture]:
        """Images of the model's predictions, none where they are not wanted or cannot be made; `note` gets the reason.

        Cost: one video sampling of `validation.pictures` windows, and two decodings each.
        """
        plan = self._plan(note)
        if plan is None or self._found is None:
            return []
        try:
            decoder = self._load(note)
            return [] if decoder is None else self._drawn(model, plan, self._found[0], decoder)
        except torch.OutOfMemoryError as error:  # the weights of the VAE's decoder and its frames come on top
            self._count, self._decoder = 0, None
            note(f"no images: decoding them ran out of GPU memory ({str(error).split('. ')[0]})")
            return []

    def _drawn(self, model: FastWAM, plan: BatchPlan, reader: WindowReader, decoder: FrameDecoder) -> list[Picture]:
        batch, training = reader.fetch(plan), model.training
        model.eval()
        try:
            predicted = self._sample(model, batch)
        finally:
            model.train(training)
        truth = batch.latents.float().numpy()
        offsets = np.arange(reader.window.num_video_frames) * reader.window.video_stride
        images = []
        for row, window in enumerate(plan.windows.tolist()):
            episode = reader.episodes[int(reader.index.episode[window])]
            start = int(reader.index.start[window])
            where = f"{episode.id} frame {start}: {episode.instruction_at(start)}"
            images.append(
                _image(f"future_{row}", where, decoder.decode(truth[row]), decoder.decode(predicted[row]), offsets)
            )
        return images

    def _plan(self, note: Callable[[str], None]) -> BatchPlan | None:
        """Windows from the middle of equal parts; None, with a reason, where there is nothing to show."""
        if not self._count or self._found is None:
            return None
        _, plans = self._found
        if not trains_video(self._recipe) or not plans[0].video:
            self._count = 0
            note("no images: the run has no video loss, so its video expert predicts nothing")
            return None
        windows = np.concatenate([plan.windows for plan in plans])
        count = min(self._count, len(windows))
        chosen = windows[((np.arange(count) + 0.5) * len(windows) / count).astype(np.int64)]
        return BatchPlan(chosen, True, 0, 0)

    def _load(self, note: Callable[[str], None]) -> FrameDecoder | None:
        if self._decoder is None:
            cache = self._source.cache
            try:
                self._decoder = cache_vae(cache.vae, cache.identity, device=str(self._device), decoder=True)
            except UsageError as error:  # a run of days does not end because an image cannot be drawn
                self._count = 0
                note(f"no images: {error}")
        return self._decoder

    def _sample(self, model: FastWAM, batch: Batch) -> NDArray[np.float32]:
        """float32 [n, C, F, h, w]."""
        seed = derived_seed(self._recipe.seed, Stream.VALIDATION, 0, 2)
        moved = batch.to(model.device)
        noise = Noise(generator=torch.Generator().manual_seed(seed))
        how = Denoising(steps=self._recipe.validation.steps)
        latents = model(sample_video, moved.first, moved.context, moved.proprio, noise, how)
        found: NDArray[np.float32] = latents.float().cpu().numpy()
        return found


def _image(
    name: str, where: str, truth: NDArray[np.uint8], predicted: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> Picture:
    """Two rows of frames: the true window above the predicted one."""
    from fwdata.report import frames_strip

    height = truth.shape[1]
    scale = float(max(1, HEIGHT // height)) if height <= HEIGHT else HEIGHT / height
    labels = [f"{row} +{offset}" if offset else "given" for row in ("true", "predicted") for offset in offsets]
    still = np.broadcast_to(truth[:1], truth.shape)
    caption = (
        f"{where}; the predicted frames have {_psnr(predicted[1:], truth[1:]):.1f} dB PSNR "
        f"({_psnr(still[1:], truth[1:]):.1f} dB for repeating the given frame)"
    )
    return Picture(name, caption, frames_strip(np.concatenate([truth, predicted]), scale, labels, len(truth)))


def _psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """dB; 99 for equal images."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    return min(99.0, 10 * float(np.log10(255.0**2 / max(error, 1e-12))))
