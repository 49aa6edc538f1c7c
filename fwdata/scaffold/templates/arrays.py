"""Texts of a converter of HDF5 or NPZ files; words between @ signs are replaced."""

from __future__ import annotations

ARRAYS = '''"""@NAME@ recordings: one @KIND@ file per episode, RAW/<task>/<episode>@SUFFIX@.
@FOUND@"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

@IMPORT@import numpy as np

from fwdata.api import BadEpisode, Discovery, Episode, EpisodeRef, Manifest, RawCamera, UsageError

@TEXT@@TIME@STATE = @STATE@
ACTION = @ACTION@
CAMERAS = @CAMERAS@
"""Camera name in the manifest -> array of its frames, uint8 [T, H, W, 3] RGB."""

BLOCK = 16


@dataclass(frozen=True)
class Frames:
    """Opens fresh passes over the frames of one camera."""

    path: Path
    key: str

    def __call__(self) -> Iterator[np.ndarray]:
        with @OPEN_SELF@ as file:
            frames = file[self.key]
            for start in range(0, len(frames), BLOCK):
                yield frames[start : start + BLOCK]


class Converter:
    """Reads the layout above."""

    version = 1

    def __init__(self, manifest: Manifest) -> None:
        self.cameras = manifest.cameras
@STEP@
    def discover(self, root: Path) -> Discovery:
        refs = []
        for path in sorted(root.rglob("*@SUFFIX@")):
            name = path.relative_to(root).as_posix()
            group = path.parent.name if path.parent != root else root.name
            refs.append(EpisodeRef(name.removesuffix("@SUFFIX@"), name, (name,), group, path.stat().st_size))
        if not refs:
            raise UsageError(f"{root} holds no *@SUFFIX@ file")
        return Discovery(tuple(refs))

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        path = root / ref.source
        with self._open(path) as file:
            for key in (*STATE, *ACTION, *CAMERAS.values()):
                if key not in file:
                    raise BadEpisode(f"array {key!r} is missing")
            state, state_names = self._joined(file, STATE)
            action, action_names = self._joined(file, ACTION)
@READ_TIME@@READ_TEXT@            sizes = {name: file[CAMERAS[name]].shape[1:3] for name in self.cameras}
        return Episode(
            cameras={n: RawCamera(Frames(path, CAMERAS[n]), int(h), int(w)) for n, (h, w) in sizes.items()},
            state=state,
            action=action,
            timestamp_ns=@TIMES@,
            valid=np.ones(len(state), bool),
            state_names=state_names,
            action_names=action_names,
            task=ref.group,
            instructions=(@INSTRUCTION@,),
        )

    def _open(self, path: Path):
        try:
            return @OPEN@
        except (OSError, ValueError) as error:
            raise BadEpisode(f"cannot be read: {error}") from None

@TEXT_METHOD@@TIME_METHOD@    def _joined(self, file, keys: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        parts = [np.asarray(file[key], np.float64) for key in keys]
        names = []
        for key, part in zip(keys, parts):
            name = key.split("/")[-1]
            names += [name] if part.ndim == 1 else [f"{name}.{i}" for i in range(part.shape[1])]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1), tuple(names)
'''

TEXT_METHOD = """    def _text(self, file) -> str:
        if TEXT not in @TEXT_PLACE@:
            raise BadEpisode(f"text {TEXT!r} is missing")
        text = np.ravel(@TEXT_PLACE@[TEXT])[0]
        return (text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)).strip()

"""
