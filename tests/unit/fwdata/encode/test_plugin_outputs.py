"""What a plug-in returns is checked before it is stored: type, shape, and that every number is finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fwdata.encode.text.encoders import LimitedTextEncoder, load_text_encoder
from fwdata.encode.vae.base import Vae
from fwdata.errors import UsageError
from fwdata.images.layouts import find_layout

ENCODER = """
import numpy as np
class Encoder:
    name, dim, max_tokens = "own", 4, 3
    def identity(self): return {}
    def encode(self, prompts): return [ROWS for _ in prompts]
def load(device): return Encoder()
"""


class Own(Vae):
    name, channels, weights_sha256 = "own", 2, "none"

    def __init__(self, latents: object) -> None:
        self._latents = latents

    def encode(self, clip: np.ndarray) -> np.ndarray:
        return self._latents  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("np.ones((2, 5), np.float16)", r"found float16 \[2, 5\] for 'do it'"),
        ("np.ones((4, 4), np.float16)", r"must return float16 \[1 to 3 tokens, 4\]"),
        ("np.ones((0, 4), np.float16)", r"found float16 \[0, 4\]"),
        ("np.ones((2, 4))", r"found float64 \[2, 4\]"),
        ("[[1.0] * 4]", "found list"),
        ("np.full((2, 4), np.nan, np.float16)", "are not finite"),
    ],
)
def test_rows_of_a_text_encoder(rows: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path))
    (tmp_path / "text_encoders").mkdir()
    (tmp_path / "text_encoders" / "own.py").write_text(ENCODER.replace("ROWS", rows))
    encoder = load_text_encoder("own")
    assert isinstance(encoder, LimitedTextEncoder), "asked before anything is written"
    with pytest.raises(UsageError, match=said):
        encoder.need(["do it"])
    with pytest.raises(UsageError, match=said):
        encoder.encode(["do it"])


@pytest.mark.parametrize(
    ("latents", "said"),
    [
        (
            np.ones((2, 2, 4, 2), np.float16),
            r"float16 \[2, 2, 2, 2\] for 5 frames of 32x32, found float16 \[2, 2, 4, 2\]",
        ),
        (np.ones((2, 2, 2, 2), np.float32), "found float32"),
        (np.full((2, 2, 2, 2), np.inf, np.float16), "not finite"),
    ],
)
def test_latents_of_a_vae(latents: np.ndarray, said: str) -> None:
    clip = np.zeros((5, 32, 32, 3), np.uint8)
    with pytest.raises(UsageError, match=said):
        Own(latents).submit([clip])
    good = np.ones((2, 2, 2, 2), np.float16)
    assert np.array_equal(Own(good).submit([clip]).result(), good[None])


def test_a_class_is_no_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path))
    (tmp_path / "layouts").mkdir()
    text = "from fwdata.images.layouts import StitchLayout\nclass Own(StitchLayout):\n    tiles = None\nLAYOUT = Own\n"
    (tmp_path / "layouts" / "own.py").write_text(text)
    with pytest.raises(UsageError, match="LAYOUT must be a StitchLayout object"):
        find_layout("own")
