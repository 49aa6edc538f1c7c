"""How well a VAE shows a store's images, measured when latents are encoded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from fixtures import robotwin_store

from fwdata.encode import fidelity
from fwdata.errors import UsageError
from fwdata.store.writable import open_writable


def test_psnr():
    black = np.zeros((4, 4, 3), np.uint8)
    assert fidelity.psnr(black, black) == math.inf
    assert fidelity.psnr(black, black + 255) == 0
    assert fidelity.psnr(black, black + 16) == pytest.approx(20 * math.log10(255 / 16))


@pytest.mark.slow
def test_encoding_reports_the_reconstruction_and_warns_where_it_is_poor(tmp_path: Path, monkeypatch, capsys):
    """The images of the store are not of the world that the embedded VAE was trained on."""
    run, store = Command(monkeypatch, capsys), robotwin_store(tmp_path, episodes=1)
    asked = ("encode-latents", store, "--vae", "tiny", "--stride", 64, "--workers", 1)
    done = run(*asked, "--json")
    found = done.json["psnr"]
    assert done.code == 0 and 10 < found < fidelity.LOW_PSNR
    assert f"warning: VAE tiny shows this store's images at {found:.1f} dB PSNR (below 20)" in done.err
    assert run(*asked, "--json").json["psnr"] is None, "nothing was encoded"
    monkeypatch.setattr(fidelity, "LOW_PSNR", 5.0)
    done = run(*asked, "--replace")
    assert done.code == 0 and done.err == "" and f"decoded again: {found:.1f} dB PSNR" in done.out


def test_a_vae_without_a_decoder_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def without(spec, *, decoder, **options):
        raise UsageError("no decoder")

    monkeypatch.setattr(fidelity, "load_vae", without)
    store = open_writable(robotwin_store(tmp_path, episodes=1))
    assert fidelity.reconstruction_psnr(store, "tiny", "cpu", "float32") is None
