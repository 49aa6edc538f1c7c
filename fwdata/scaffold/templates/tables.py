"""Texts of a converter of folders with a table and cameras; words between @ signs are replaced."""

from __future__ import annotations

FOLDER = '''"""@NAME@ recordings: a folder per episode with @TABLE@ and @CAMERA_KINDS@.

    RAW/<task>/<episode>/@TABLE@   one row per frame
    RAW/<task>/<episode>/<camera>   @CAMERA_LAYOUT@
@FOUND@"""

from __future__ import annotations

@IMPORT@from pathlib import Path

import numpy as np
@IMPORT_NEXT@
from fwdata.api import BadEpisode, Discovery, Episode, EpisodeRef, Manifest, @CAMERA_CLASSES@UsageError@CAMERA_CLASS@
from fwdata.images.files import images_in

TABLE = "@TABLE@"
@TEXT@@TIME@STATE = @STATE@
ACTION = @ACTION@
CAMERAS = @CAMERAS@
"""Camera name in the manifest -> @CAMERA_OF@."""


class Converter:
    """Reads the layout above."""

    version = 1

    def __init__(self, manifest: Manifest) -> None:
        self.cameras = manifest.cameras
@STEP@
    def discover(self, root: Path) -> Discovery:
        refs = []
        for table in sorted(root.rglob(TABLE)):
            episode = table.parent
            paths = [table, @TEXT_FILE@*(p for name in CAMERAS.values() for p in self._files(episode / name))]
            files = tuple(p.relative_to(root).as_posix() for p in paths)
            name = episode.relative_to(root).as_posix() if episode != root else root.name
            size = sum(p.stat().st_size for p in paths if p.is_file())
            refs.append(EpisodeRef(name, name, files, episode.parent.name or root.name, size))
        if not refs:
            raise UsageError(f"{root} holds no {TABLE}")
        return Discovery(tuple(refs))

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        folder = (root / ref.files[0]).parent
        columns = self._table(folder / TABLE)
        state, state_names = self._joined(columns, STATE)
        action, action_names = self._joined(columns, ACTION)
        return Episode(
            cameras={name: self._camera(folder / CAMERAS[name]) for name in self.cameras},
            state=state,
            action=action,
            timestamp_ns=@TIMES@,
            valid=np.ones(len(state), bool),
            state_names=state_names,
            action_names=action_names,
            task=ref.group,
            instructions=(@INSTRUCTION@,),
        )

    def _files(self, camera: Path) -> list[Path]:
        return [camera] if camera.is_file() else images_in(camera)

    def _camera(self, path: Path):
@CAMERA_BODY@

@TEXT_METHOD@@TIME_METHOD@    def _table(self, path: Path):
@TABLE_BODY@

    def _joined(self, columns, keys: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        parts, names = [], []
        for key in keys:
            if key not in columns:
                raise BadEpisode(f"{TABLE} has no column {key!r}; it has {', '.join(columns)}")
            try:
                part = np.asarray(columns[key], np.float64)
            except (TypeError, ValueError) as error:
                raise BadEpisode(f"{TABLE} holds a value that is not a number: {error}") from None
            names += [key] if part.ndim == 1 else [f"{key}.{i}" for i in range(part.shape[1])]
            parts.append(part.reshape(len(part), -1))
        return np.concatenate(parts, axis=1), tuple(names)
'''

IMAGES_BODY = """        return RawCamera.from_files(self._files(path))"""
VIDEO_BODY = """        return VideoCamera.from_file(path)"""
BOTH_BODY = """\
        if path.is_file():
            return VideoCamera.from_file(path)
        return RawCamera.from_files(self._files(path))"""

TEXT_FILE_METHOD = """    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise BadEpisode(f"{TEXT} cannot be read: {error}") from None

"""

CSV_BODY = """        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return {str(name).strip(): [row[name] for row in rows] for name in (rows[0] if rows else ())}"""
NPZ_BODY = """        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file}
        except (OSError, ValueError, EOFError) as error:
            raise BadEpisode(f"{TABLE} cannot be read: {error}") from None"""
PARQUET_BODY = """        try:
            return pq.read_table(path, use_threads=False).to_pydict()
        except (OSError, ValueError) as error:
            raise BadEpisode(f"{TABLE} cannot be read: {error}") from None"""

TEXT_COLUMN_METHOD = """    def _text(self, columns) -> str:
        texts = {str(text).strip() for text in columns.get(TEXT, ())}
        if len(texts) != 1:
            raise BadEpisode(f"{TABLE}: column {TEXT!r} must hold one text, found {sorted(texts)[:3] or 'none'}")
        return texts.pop()

"""
