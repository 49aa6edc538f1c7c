"""The VAE that a run's latents were made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fwtrain.errors import RunMismatch

if TYPE_CHECKING:
    from fwdata.encode.vae.base import Vae


def cache_vae(spec: str, identity: Mapping[str, Any], *, device: str = "cpu", decoder: bool = False) -> Vae:
    """Load the VAE `spec`, which must have the weights that a latent cache of this identity was made with.

    Raises UsageError when it cannot be found or downloaded, RunMismatch for other weights.
    """
    from fwdata.encode.vae.wan import load_vae

    made_with = identity["vae"]
    vae = load_vae(spec, dtype=made_with["compute_dtype"], device=device, decoder=decoder)
    if vae.weights_sha256 != made_with["weights"]:
        raise RunMismatch(
            f"VAE {spec!r} has other weights ({vae.weights_sha256[:12]}) than the run's latents were made with "
            f"({made_with['weights'][:12]}); pass the one used for fwdata encode-latents with --vae"
        )
    return vae
