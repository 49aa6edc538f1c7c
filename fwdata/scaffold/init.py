"""`fwdata init`: converter, manifest, fixture and test of a new robot, which pass at once."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

from fwdata.errors import UsageError
from fwdata.images.files import images_in
from fwdata.images.video_files import WholeVideo, is_video
from fwdata.io import write_atomic
from fwdata.scaffold.bags import VECTORS, write_short_bag
from fwdata.scaffold.draft import EXAMPLE, Draft
from fwdata.scaffold.inspect_recording import draft_from, read_columns
from fwdata.scaffold.templates import arrays, bag, common, tables

FIXTURE_ROWS = 12
"""Rows of a recording that the fixture keeps."""
TASK = "move_the_block"
"""Task of the fixture: the name of its folder."""


_BY_GROUP = 'ref.group.replace("_", " ")'
_EVEN_TIMES = "np.arange(len(state)) * self.step_ns"


@dataclass(frozen=True)
class Scaffold:
    """What `init` wrote."""

    folder: Path
    """The folder to give as FWDATA_PLUGINS."""
    files: tuple[Path, ...]
    """Converter, manifest, test, then the fixture's files."""
    draft: Draft
    """What it was written from."""


def init(name: str, out: Path, source: Path | None = None) -> Scaffold:
    """Write NAME.py, NAME.yaml, test_NAME.py and fixture/ into `out`.

    source: a recording to fill them in from, see `draft_from`. UsageError for a name that is not a Python identifier or
    is taken, a folder that is not empty, and a recording that nothing can be read from; nothing is written then.
    """
    from fwdata.pipeline.registry import converter_names

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"the name {name!r} must be lower-case letters, digits and '_', beginning with a letter")
    if name in converter_names():
        raise UsageError(f"there is a converter {name!r} already; choose another name")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty; choose another --out")
    draft = EXAMPLE if source is None else draft_from(source)
    place = out.resolve()
    building = place.with_name(f".{place.name}.init")
    shutil.rmtree(building, ignore_errors=True)
    try:
        for file, text in _texts(name, draft).items():
            write_atomic(building / file, text.encode())
        _write_fixture(building / "fixture" / TASK, draft)
        if out.exists():  # empty, and perhaps the current folder or another's link
            for made in building.iterdir():
                made.replace(place / made.name)
        else:
            building.replace(place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    files = [out / f"{name}.py", out / f"{name}.yaml", out / f"test_{name}.py"]
    return Scaffold(out, (*files, *sorted(p for p in (out / "fixture").rglob("*") if p.is_file())), draft)


def _texts(name: str, draft: Draft) -> dict[str, str]:
    height, width = (max(32, 32 * round(side / 32)) for side in draft.size)
    found = "".join(f"    {line}\n" for line in draft.found)
    values = {
        "NAME": name,
        "FOUND": f"\nThe recording it was drafted from holds:\n\n{found}" if found else "",
        "STATE": _tuple(draft.state),
        "ACTION": _tuple(draft.action),
        "CAMERAS": _mapping(draft.cameras),
        "FPS": f"{draft.fps:g}",
        "CAMERA_LIST": ", ".join(draft.cameras),
        "HEIGHT": str(height),
        "WIDTH": str(width),
        "FIELDS": _mapping(VECTORS),
        "KIND": {"hdf5": "HDF5", "npz": "NPZ"}.get(draft.kind, ""),
        "SUFFIX": draft.sample.suffix if draft.sample is not None and draft.kind != "folder" else "",
        "IMPORT": "import h5py\n" if draft.kind == "hdf5" else "",
        **(_folder_texts(draft) if draft.kind == "folder" else _array_texts(draft)),
        "STEP": "" if draft.time else common.STEP,
        "TIME": common.TIME if draft.time else "",
        "TIME_KEY": draft.time,
        "TIME_NS": f"{draft.time_ns:_}",
        "TIME_METHOD": common.TIME_METHOD if draft.time else "",
        "OPEN": 'h5py.File(path, "r")' if draft.kind == "hdf5" else "np.load(path, allow_pickle=False)",
        "OPEN_SELF": 'h5py.File(self.path, "r")' if draft.kind == "hdf5" else "np.load(self.path, allow_pickle=False)",
    }
    converter = {"folder": tables.FOLDER, "bag": bag.BAG}.get(draft.kind, arrays.ARRAYS)
    texts = {f"{name}.py": converter, f"{name}.yaml": common.MANIFEST, f"test_{name}.py": common.TEST}
    return {file: _filled(text, values) for file, text in texts.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A template with its words replaced, also those that the replacements bring."""
    return re.sub(r"@([A-Z_]+)@", lambda match: _filled(values[match[1]], values), text)


def _folder_texts(draft: Draft) -> dict[str, str]:
    """What the converter of a folder says of its table, its cameras and its instruction."""
    videos = [name for name in draft.cameras.values() if is_video(Path(name))]
    kinds = (["a video"] if videos else []) + (["a folder of images"] if len(videos) < len(draft.cameras) else [])
    body = tables.IMAGES_BODY if not videos else tables.VIDEO_BODY if len(kinds) == 1 else tables.BOTH_BODY
    in_file = bool(draft.text) and draft.text_in == "file"
    suffix = Path(draft.table).suffix.lower()
    return {
        "TABLE": draft.table,
        "CAMERA_KINDS": f"{' or '.join(kinds)} per camera",
        "CAMERA_LAYOUT": "one frame per row"
        + (", images in order of the numbers in their names" if "folder" in kinds[-1] else ""),
        "CAMERA_OF": " or ".join(f"its {kind.split(' ', 1)[1]}" for kind in kinds),
        "CAMERA_CLASSES": "RawCamera, " if "RawCamera" in body else "",
        "CAMERA_CLASS": ", VideoCamera" if videos else "",
        "CAMERA_BODY": body,
        "TABLE_BODY": {".npz": tables.NPZ_BODY, ".parquet": tables.PARQUET_BODY}.get(suffix, tables.CSV_BODY),
        "IMPORT": "import csv\n" if suffix == ".csv" else "",
        "IMPORT_NEXT": "import pyarrow.parquet as pq\n" if suffix == ".parquet" else "",
        "TEXT": f'TEXT = "{draft.text}"\n"""{"File" if in_file else "Column"} of the instruction."""\n'
        if draft.text
        else "",
        "TEXT_FILE": "episode / TEXT, " if in_file else "",
        "INSTRUCTION": "self._text(folder / TEXT)"
        if in_file
        else _BY_GROUP
        if not draft.text
        else "self._text(columns)",
        "TEXT_METHOD": "" if not draft.text else tables.TEXT_FILE_METHOD if in_file else tables.TEXT_COLUMN_METHOD,
        "TIMES": "self._times(columns)" if draft.time else _EVEN_TIMES,
    }


def _array_texts(draft: Draft) -> dict[str, str]:
    """What the converter of an HDF5 or NPZ file says of its time and its instruction."""
    place = "file.attrs" if draft.text_in == "attribute" else "file"
    return {
        "TEXT": f'TEXT = "{draft.text}"\n"""{draft.text_in.capitalize()} of the instruction."""\n'
        if draft.text
        else "",
        "TEXT_PLACE": place,
        "TEXT_METHOD": arrays.TEXT_METHOD if draft.text else "",
        "READ_TEXT": "            instruction = self._text(file)\n" if draft.text else "",
        "READ_TIME": "            times = self._times(file)\n" if draft.time else "",
        "INSTRUCTION": "instruction" if draft.text else _BY_GROUP,
        "TIMES": "times" if draft.time else _EVEN_TIMES,
    }


def _mapping(values: Mapping[str, str]) -> str:
    line = "{" + ", ".join(f'"{key}": "{value}"' for key, value in values.items()) + "}"
    return line if len(line) < 100 else "{\n" + "".join(f'    "{k}": "{v}",\n' for k, v in values.items()) + "}"


def _tuple(names: tuple[str, ...]) -> str:
    line = "(" + ", ".join(f'"{name}"' for name in names) + ("," if len(names) == 1 else "") + ")"
    return line if len(line) < 100 else "(\n" + "".join(f'    "{name}",\n' for name in names) + ")"


def _write_fixture(folder: Path, draft: Draft) -> None:
    """A short recording in the same layout."""
    if draft.kind == "folder":
        _folder_fixture(folder / "episode0", draft)
    elif draft.kind == "bag":
        assert draft.sample is not None
        folder.mkdir(parents=True)
        topics = frozenset((*draft.cameras.values(), *draft.state, *draft.action))
        write_short_bag(draft.sample, folder / f"episode0{draft.sample.suffix}", topics)
    else:
        _array_fixture(folder, draft)


def _folder_fixture(folder: Path, draft: Draft) -> None:
    folder.mkdir(parents=True)
    if draft.sample is None:
        _made_up(folder, draft)
        return
    for name in draft.cameras.values():
        if (draft.sample / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _short_video(draft.sample / name, folder / name)
            continue
        (folder / name).mkdir(parents=True)
        for path in images_in(draft.sample / name)[:FIXTURE_ROWS]:
            shutil.copy(path, folder / name / path.name)
    if draft.text and draft.text_in == "file":
        shutil.copy(draft.sample / draft.text, folder / draft.text)
    _short_table(draft.sample / draft.table, folder / draft.table)


def _short_table(source: Path, target: Path) -> None:
    """The first rows of a table."""
    import numpy as np

    if source.suffix.lower() == ".npz":
        columns = read_columns(source)
        np.savez(target, allow_pickle=False, **{n: v[:FIXTURE_ROWS] if v.ndim else v for n, v in columns.items()})
    elif source.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(source, use_threads=False).slice(0, FIXTURE_ROWS), target)
    else:
        with source.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[: FIXTURE_ROWS + 1]
        with target.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def _short_video(source: Path, target: Path) -> None:
    """The first frames of a video, coded anew."""
    import av

    with av.open(str(target), "w", format="mp4" if target.suffix.lower() in {".m4v", ".mov"} else None) as out:
        stream = None
        for number, frame in enumerate(islice(WholeVideo.of(source)(), FIXTURE_ROWS)):
            if stream is None:
                stream = out.add_stream("libx264", rate=10)
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv444p"
            frame.time_base, frame.pts = Fraction(1, 10), number
            out.mux(stream.encode(frame))
        assert stream is not None
        out.mux(stream.encode())


def _made_up(folder: Path, draft: Draft) -> None:
    """A recording of moving colours and waves."""
    import numpy as np
    from PIL import Image

    names = [*draft.state, *draft.action]
    values = [[f"{np.sin(t / 4 + i):.4f}" for i in range(len(names))] for t in range(FIXTURE_ROWS)]
    height, width = draft.size
    for name in draft.cameras.values():
        (folder / name).mkdir()
        for t in range(FIXTURE_ROWS):
            image = np.zeros((height, width, 3), np.uint8)
            image[:, :, 0] = np.arange(width)
            image[10:20, 4 * t : 4 * t + 10] = (30, 200, 60)
            Image.fromarray(image).save(folder / name / f"{t:06d}.png")
    with (folder / draft.table).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["time", *names])
        csv.writer(file).writerows([f"{t / draft.fps:.3f}", *row] for t, row in enumerate(values))


def _array_fixture(folder: Path, draft: Draft) -> None:
    """The same arrays, their first rows alone."""
    import numpy as np

    assert draft.sample is not None
    folder.mkdir(parents=True)
    rows = {*draft.state, *draft.action, *draft.cameras.values(), draft.time} - {""}
    whole = {draft.text} - {""} if draft.text_in == "array" else set()
    target = folder / f"episode0{draft.sample.suffix}"
    if draft.kind == "npz":
        with np.load(draft.sample, allow_pickle=False) as file:
            kept = {key: file[key][:FIXTURE_ROWS] for key in rows} | {key: file[key] for key in whole}
        np.savez(target, allow_pickle=False, **kept)
        return
    import h5py

    with h5py.File(draft.sample, "r") as source, h5py.File(target, "w") as file:
        for key in sorted(rows):
            file.create_dataset(key, data=source[key][:FIXTURE_ROWS], compression="gzip")
        for key in whole:
            source.copy(key, file, name=key)
        if draft.text and draft.text_in == "attribute":
            file.attrs[draft.text] = source.attrs[draft.text]
