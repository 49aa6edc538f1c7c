"""Records of what is made from parts: stitched frames, latents, texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fwdata.io import Json
from fwdata.store.records.base import Count, Digest, Record, SealedRecord
from fwdata.window import Window


class MadeFromRecord(Record):
    """What everything that is made from a part has, finished or not."""

    source: Digest
    """Digest of the record of the part."""


class StitchedRecord(SealedRecord):
    """The stitched frames of a part, materialised."""

    source: Digest
    """Digest of the record of the part they were made from."""
    stitch_hash: str
    """Digest of the stitching they were made with."""


class CacheRecord(Record):
    """What every cache has."""

    name: str
    """Name given with `--name`."""
    fingerprint: str
    """12 hex digits: digest of the identity."""
    identity: dict[str, Json]
    """Every setting that can change a bit of the cache; a plug-in's VAE or text encoder adds its own, any JSON."""

    def key(self) -> str:
        """Name of the cache's folder."""
        return f"{self.name}-{self.fingerprint}"

    def count_setting(self, name: str) -> int:
        """A whole number of the identity, such as `stride` or `batch`; 1 where it does not name one."""
        value = self.identity.get(name, 1)
        return value if isinstance(value, int) else 1


class WindowRecord(Record):
    """The training window of a latent cache; see `fwdata.window.Window`."""

    num_frames: Count
    """Raw frames covered."""
    video_stride: Count
    """Raw frames between two video frames."""
    latent_frames: Count
    """Latent frames of the window, the first frame's included."""
    action_horizon: Count
    """Action rows of the window."""

    def window(self) -> Window:
        """The checked window. ValueError where the numbers do not fit together."""
        window = Window(num_frames=self.num_frames, video_stride=self.video_stride, action_horizon=self.action_horizon)
        if self.latent_frames != window.latent_frames:
            raise ValueError(f"latent_frames must be {window.latent_frames}, not {self.latent_frames}")
        return window


class LatentCacheRecord(CacheRecord):
    """A latent cache."""

    vae: str
    """What loads the VAE again: "tiny-libero", "tiny", "wan2.2", a path or a hub id."""
    stride: Annotated[int, Field(strict=True, ge=1)]
    """Frames between two window starts that have future latents."""
    shape: tuple[Count, Count, Count]
    """(C, h, w) of one latent frame."""
    window: WindowRecord
    """The window whose future latents are stored."""

    @property
    def compute_dtype(self) -> str:
        """dtype that the VAE computed in; "float32" where its identity does not name one."""
        vae = self.identity.get("vae")
        return str(vae.get("compute_dtype", "float32")) if isinstance(vae, dict) else "float32"


class LatentPartRecord(SealedRecord):
    """The latents of one part."""

    source: Digest
    """Digest of the record of the part they were made from."""
    frames: Count
    """Frames with a first-frame latent: all rows of the part."""
    windows: Count
    """Window starts with future latents."""


class LatentDraftRecord(Record):
    """Latents of a part that are being written; a killed run continues if their part is the same."""

    state: Literal["writing"] = "writing"
    """Replaced by "complete" when everything is there."""
    source: Digest
    """Digest of the record of the part they are made from."""


class TextCacheRecord(CacheRecord):
    """A text cache."""

    encoder: str
    """What loads the text encoder again: "tiny", "umt5-xxl", a path or a hub id."""
    dim: Count
    """D: width of an embedding row."""
    max_tokens: Count
    """L: rows of an embedding, padding included."""


class TextPartRecord(SealedRecord):
    """One part of a text cache."""

    prompts: Count
    """Prompts of the part."""
