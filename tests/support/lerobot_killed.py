"""LeRobot datasets whose writer was killed, and what is read of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
from lerobot_files import Recipe, encoded, frames
from lerobot_reading import converter

from fwdata.api import Episode

V3 = Recipe(version="v3.0", lengths=(12, 9, 10), tasks=(0, 1, 0))
TABLE = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
HEAD = "observation.images.head_rgb"
VIDEO = f"videos/{HEAD}/chunk-000/file-000.mp4"


def kill(path: Path, lengths: tuple[int, ...], share: float = 1.0) -> None:
    """Write a table again as a writer does that is killed: a row group for each episode, and no footer."""
    table = pq.read_table(path)
    buffer = io.BytesIO()
    writer = pq.ParquetWriter(buffer, table.schema, compression="snappy", use_dictionary=True)
    start = 0
    for length in lengths:
        writer.write_table(table.slice(start, length))
        start += length
    data = buffer.getvalue()
    path.write_bytes(data[: int(len(data) * share)])
    del writer


def order_columns(root: Path) -> None:
    """Tables whose columns have the order of info.json, as LeRobot writes them."""
    info = json.loads((root / "meta/info.json").read_text())
    keys = [key for key, feature in info["features"].items() if feature["dtype"] != "video"]
    for path in root.glob("data/*/*.parquet"):
        pq.write_table(pq.read_table(path).select(keys), path)


def recovered(root: Path, **options: object) -> list[Episode]:
    made = converter(recover=True, **options)
    return [made.read(root, ref) for ref in made.discover(root).episodes]


def loosen(root: Path, recipe: Recipe, episode: int, sign: str, count: int | None = None) -> None:
    """Images of the head camera as lerobot's writer leaves them where it is killed before it encodes them."""
    folder = root / f"images/{HEAD}/episode{sign}{episode:06d}"
    folder.mkdir(parents=True)
    for index, image in enumerate(frames(recipe, HEAD, episode)[:count]):
        (folder / f"frame{sign}{index:06d}.png").write_bytes(encoded(image, "png"))
