"""Image features of rare kinds are shown as lerobot shows them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import Recipe, edit_table, write_dataset
from lerobot_reading import pixels, read_all, reason
from PIL import Image, ImageOps

HEAD = "observation.images.head_rgb"
PARQUET = "data/chunk-000/episode_000000.parquet"
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURNED = Image.Exif()
TURNED[0x0112] = 6


def images(root: Path) -> list[bytes]:
    return [cell["bytes"] for cell in pq.read_table(root / PARQUET).column(HEAD).to_pylist()]


def replaced(root: Path, cells: list[bytes]) -> None:
    edit_table(root / PARQUET, HEAD, pa.array([{"bytes": data, "path": "x"} for data in cells], CELL))


def again(data: bytes, mode: str, form: str, **options: object) -> bytes:
    """An image written anew."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("mode", "form"), [("RGB", "jpeg"), ("RGB", "png"), ("LA", "png")])
def test_images_that_are_to_be_turned_are_upright(tmp_path, mode, form):
    root = write_dataset(tmp_path, Recipe(pictures="png"))
    cells = [again(data, mode, form, exif=TURNED) for data in images(root)]
    replaced(root, cells)
    shown = [np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")) for data in cells]
    assert shown[0].shape == (32, 24, 3)
    assert np.array_equal(pixels(read_all(root)[0].cameras["head_rgb"]), shown)


def test_one_image_that_is_to_be_turned_is_named(tmp_path):
    root = write_dataset(tmp_path, Recipe(pictures="jpeg"))
    cells = images(root)
    replaced(root, [*cells[:2], again(cells[2], "RGB", "jpeg", exif=TURNED), *cells[3:]])
    assert f"{HEAD} frame 2 is to be turned by its EXIF orientation, frame 0 is not" in reason(root)
