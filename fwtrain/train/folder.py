"""The run folder: what it holds, and when a run may continue in it.

RUN/recipe.yaml     the resolved recipe
RUN/run.json        RunInfo: store, caches, sizes, normalisation: all that prediction needs besides the weights
RUN/log.jsonl       one line per logged step
RUN/pictures/       decoded futures of validation windows, where asked for
RUN/report.html     the run on one page, written when training stops
RUN/tensorboard/    events
RUN/frozen.safetensors  with freeze or lora: the parameters that no step changes, written once
RUN/checkpoints/    see fwtrain.train.checkpoint
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fwdata.errors import UsageError
from fwdata.io import folder_lock, made_folder, write_json, write_synced
from fwdata.manifest import Manifest, Model, validate_model
from fwdata.normalise import Normaliser
from fwtrain.data import StoreInfo, StoreSource
from fwtrain.data.contract import CacheLike, TextLike
from fwtrain.errors import CheckpointError, RunMismatch
from fwtrain.model import ModelConfig
from fwtrain.model.config import recorded
from fwtrain.recipe import Recipe, parse_recipe
from fwtrain.recipe_changes import differences
from fwtrain.train.checkpoint import CHECKPOINTS, Checkpoint, best, checkpoints, latest
from fwtrain.train.logs import LOG, PICTURES, TRACKERS
from fwtrain.weights.initialise import initial_shift
from fwtrain.weights.released import ACTION_SHIFT, OLDER_ACTION_SHIFT

RECIPE, INFO, TENSORBOARD = "recipe.yaml", "run.json", "tensorboard"
UNNAMED = f".{RECIPE}.tmp"
DIGESTS = ("normalisation", "episodes")
"""Keys of an identity that show only that something differs, not what."""

TRAINED_VIEW = ("window", "split", "normalisation", "prompt")
"""Keys of a store's view that a training batch depends on besides its caches."""
SIZES_OF = 32
"""Training episodes whose camera sizes are recorded."""
OLD_MANIFEST = "manifest"
"""Key of a run's identity up to release 0.1, the digest of the whole manifest."""
REPORT, FROZEN = "report.html", "frozen.safetensors"


class CacheInfo(Model):
    """A cache the run reads."""

    name: str
    """Its name in the store."""
    spec: str
    """What loads its VAE or text encoder again."""
    fingerprint: str
    """Its identity, short."""
    identity: dict[str, object]
    """What the fingerprint is made of; open JSON, compared and shown key by key."""


class Scaling(Model):
    """Normalisation of one vector; see `fwdata.normalise`."""

    names: tuple[str, ...]
    """One name per dimension."""
    scale: tuple[float, ...]
    """Factor per dimension."""
    offset: tuple[float, ...]
    """Summand per dimension."""

    def normaliser(self) -> Normaliser:
        """The map itself."""
        return Normaliser.from_json({"scale": self.scale, "offset": self.offset})


class RunInfo(Model):
    """run.json: what a run was made from, and all that prediction needs besides the weights."""

    version: int = 1
    """Version of this record."""
    source: str
    """Converter of the store the run was made from."""
    fps: float
    """Rate of the rows, Hz."""
    manifest: Manifest
    """The store's, with stitching, window and prompt."""
    model: ModelConfig
    """Sizes of the model."""
    latents: CacheInfo
    """Latent cache."""
    text: CacheInfo
    """Text cache."""
    state: Scaling
    """Normalisation of the state."""
    action: Scaling
    """Normalisation of the action."""
    latent_shape: tuple[int, int, int]
    """(C, h, w) of one latent frame."""
    text_shape: tuple[int, int]
    """(L, Dt): text tokens, width of an embedding."""
    episodes: dict[str, int]
    """Number of episodes by split."""
    stores: tuple[StoreInfo, ...] = ()
    """The one store, or all that were joined; () in runs of older versions."""
    recorded_sizes: tuple[tuple[int, int], ...] = ()
    """(height, width) in pixels of the recorded camera frames, before stitching, of up to 32 training episodes; () in
    runs of older versions and in imported ones."""
    student_steps: int | None = None
    """Euler steps that a student of `fwtrain distil` was trained for; None for every other run."""

    def student_warning(self, steps: int) -> str | None:
        """A sentence where a student is sampled with another number of steps than it was trained for."""
        if self.student_steps in (None, steps):
            return None
        return (
            f"the run is a student of {self.student_steps} denoising step{'s' if self.student_steps != 1 else ''}, "
            f"sampled with {steps}: it was not trained for the times in between; pass --steps {self.student_steps}"
        )

    @classmethod
    def of(cls, source: StoreSource, config: ModelConfig) -> RunInfo:
        """The information of a run on `source`."""
        store = source.store
        return cls(
            source=store.source,
            fps=store.fps,
            manifest=source.manifest,
            model=config,
            latents=_cache_info(source.cache, source.cache.vae),
            text=_cache_info(source.text, source.text.encoder),
            state=Scaling(names=store.state_names, **_floats(source.state)),
            action=Scaling(names=store.action_names, **_floats(source.action)),
            latent_shape=source.latent_shape,
            text_shape=source.text_shape,
            episodes={"train": len(source.train), "val": len(source.val)},
            stores=source.stores,
            recorded_sizes=_recorded_sizes(source),
        )

    def identity(self) -> dict[str, str]:
        """What must be equal for a run to continue; kept in every checkpoint.

        Of the store's manifest, what training depends on: window, split, normalisation and prompt. Stitching is part of
        the latent cache's fingerprint; the source and the description change no batch.
        """
        view = self.manifest.view.model_dump(mode="json", include=set(TRAINED_VIEW))
        scaling = {"state": self.state.model_dump(mode="json"), "action": self.action.model_dump(mode="json")}
        listed = ", ".join(f"{s.name} {s.fingerprint}" for s in self.stores)
        return {
            **({"list of stores": listed} if len(self.stores) > 1 else {}),
            **({"recordings": self.stores[0].fingerprint} if len(self.stores) == 1 else {}),
            "model": self.model.to_json(),
            "latent cache": self.latents.fingerprint,
            "text cache": self.text.fingerprint,
            "normalisation": _digest(scaling),
            "episodes": _digest(self.episodes),
            "view": json.dumps(view, sort_keys=True),
        }


def _cache_info(cache: CacheLike[Any] | TextLike, spec: str) -> CacheInfo:
    return CacheInfo(name=cache.name, spec=spec, fingerprint=cache.fingerprint, identity=cache.identity)


def _recorded_sizes(source: StoreSource) -> tuple[tuple[int, int], ...]:
    """Sizes of the frames of the stitched cameras in episodes spread over the training ones."""
    train = source.train[:: max(len(source.train) // SIZES_OF, 1)][:SIZES_OF]
    found = {
        (int(size[0]), int(size[1]))
        for episode in train
        for name, size in episode.metadata.get("camera_sizes", {}).items()
        if name in source.manifest.stitch.cameras
    }
    return tuple(sorted(found))


def _floats(scaling: Normaliser) -> dict[str, tuple[float, ...]]:
    return {key: tuple(values) for key, values in scaling.to_json().items()}


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def refuse_difference(saved: Mapping[str, str], now: Mapping[str, str], where: str) -> None:
    """RunMismatch naming the first thing that differs between two identities; digests last, they follow from others.

    Checkpoints of earlier releases hold a digest of the whole manifest; run.json, compared too, holds the view.
    """
    unknown = {OLD_MANIFEST, "view", "recordings"} if OLD_MANIFEST in saved else {"recordings"} - saved.keys()
    for key in sorted({**now, **saved}, key=lambda key: key in DIGESTS):
        before, after = saved.get(key, "none"), now.get(key, "none")
        if before == after or key in unknown or (key == "model" and _same_model(before, after)):
            continue
        detail = f"{before} -> {after}"
        if key in ("model", "view"):
            detail = "; ".join(_tree_differences(json.loads(saved.get(key, "{}")), json.loads(after)))
        if key in DIGESTS:
            detail += " (digests; other recordings, another split or recomputed statistics)"
        raise RunMismatch(f"{where} was made with another {key}: {detail}; use another --out or --fresh")


def _same_model(before: str, after: str) -> bool:
    """Whether two recorded configurations mean the same model: one may be older and lack keys that were added since."""
    if "none" in (before, after):
        return False
    return ModelConfig.from_json(before) == ModelConfig.from_json(after)


def _tree_differences(before: Any, after: Any, prefix: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = list({**before, **after})
        return [d for k in keys for d in _tree_differences(before.get(k), after.get(k), f"{prefix}.{k}".lstrip("."))]
    return [] if before == after else [f"{prefix} {before} -> {after}"]


@dataclass(frozen=True)
class RunFolder:
    """A run folder on disk."""

    path: Path
    """The folder."""

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def exists(self) -> bool:
        """Whether a run is there."""
        return (self.path / RECIPE).is_file()

    def latest(self) -> Checkpoint | None:
        """Newest complete checkpoint."""
        return latest(self.checkpoints)

    def recipe(self) -> Recipe:
        """The recipe the run was made with, with a number for every setting. Raises UsageError when this is not a run
        folder."""
        return parse_recipe(self._read(RECIPE), str(self.path / RECIPE)).settled(OLDER_ACTION_SHIFT)

    def info(self) -> RunInfo:
        """run.json. Raises UsageError when this is not a run folder."""
        try:
            data = json.loads(self._read(INFO))
        except json.JSONDecodeError as error:
            raise UsageError(f"{self.path / INFO} is not valid JSON: {error}") from None
        if isinstance(data, dict) and "model" in data:
            data["model"] = recorded(data["model"])
        return validate_model(RunInfo, data, str(self.path / INFO))

    def settled(self, recipe: Recipe, *, anew: bool = False, initial: bool = True) -> Recipe:
        """A recipe with the action shift that it leaves open: that of the run that is here (not with `anew`), of the
        weights that `model.init` names, or what upstream trains with.

        initial: whether to look at these weights, which may be downloaded. Raises UsageError for weights of which
        nothing says how they were trained.
        """
        wanted = recipe.model
        if wanted.action_shift is not None:
            shift = wanted.action_shift
        elif self.exists and not anew:
            shift = self.recipe().model.action_shift or OLDER_ACTION_SHIFT
        else:
            shift = initial_shift(wanted.init) if initial and wanted.init is not None else ACTION_SHIFT
        return recipe.settled(shift)

    def best(self) -> Checkpoint | None:
        """Weights of the step with the lowest validation score."""
        return best(self.checkpoints)

    def need_checkpoint(self, which: str = "last") -> Checkpoint:
        """The complete checkpoint called "last", "best" or by its step; CheckpointError when there is none."""
        every = checkpoints(self.checkpoints)
        if which in ("last", "best"):
            found = self.best() if which == "best" else self.latest()
        else:
            found = next((item for item in every if str(item.step) == which), None)
        if found is not None:
            return found
        if which == "last":
            raise CheckpointError(f"{self.path} has no complete checkpoint yet; train it with fwtrain run")
        known = ["last", *["best"] * (self.best() is not None), *(str(item.step) for item in every)]
        raise CheckpointError(f"--checkpoint {which}: {self.path} has no such checkpoint; known: {', '.join(known)}")

    def lengthened(self, recipe: Recipe) -> int | None:
        """The step at which the run that is here was finished, where `recipe` differs from its own in nothing but more
        steps (or epochs); None where it does not, or where that run is not finished."""
        newest = self.latest() if self.exists else None
        if newest is None or not self._only_longer(recipe):
            return None
        return newest.step if newest.step >= newest.state()["total"] else None

    def _only_longer(self, recipe: Recipe) -> bool:
        """Whether `recipe` is that of the run with more steps, or with more epochs."""
        own = self.recipe()
        lengths = ((own.optim.steps, recipe.optim.steps), (own.optim.epochs, recipe.optim.epochs))
        if not any(before is not None and after is not None and after > before for before, after in lengths):
            return False
        length = {"steps": recipe.optim.steps, "epochs": recipe.optim.epochs}
        return not differences(own.model_copy(update={"optim": own.optim.model_copy(update=length)}), recipe)

    def _length_advice(self, recipe: Recipe, changed: list[str]) -> str:
        """What to do instead, where a run is given fewer steps, or more before it is finished."""
        if self._only_longer(recipe):
            return "; a run can be given more steps once it is finished: finish it first, with the steps it has"
        shorter = all(line.startswith(("optim.steps:", "optim.epochs:")) for line in changed)
        return "; a finished run can be given more steps, not fewer" if shorter else ""

    def _read(self, name: str) -> str:
        path = self.path / name
        if not path.is_file():
            raise UsageError(f"{self.path} is not a run folder: it has no {name}; make one with fwtrain run")
        return path.read_text(encoding="utf-8")

    def prepare(
        self, recipe: Recipe, *, resume: bool, fresh: bool, held: ExitStack | None = None, longer: bool = True
    ) -> None:
        """Decide what happens with an existing folder, before anything is read from the store.

        New or empty: start. A run of an equal recipe: continue. `fresh`: start in place of the old run, which stays
        until `clear`. held: takes the folder's lock, which makes the folder. longer: a finished run may be given more
        steps. Raises RunMismatch naming the keys of
        another recipe, UsageError for `resume` without a run or a folder that is not ours, StoreBusy when another
        process trains in it.
        """
        exists = self.exists
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file; name a folder")
        if held is not None and (exists or not resume):
            held.enter_context(made_folder(self.path))
            held.enter_context(folder_lock(self.path))
        if fresh and exists:
            return
        if resume and not exists:
            raise UsageError(f"--resume: {self.path} holds no run; leave out --resume to start one")
        if exists:
            changed = differences(self.recipe(), recipe)
            if changed and not (longer and self.lengthened(recipe) is not None):
                more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
                raise RunMismatch(
                    f"{self.path} holds a run of another recipe ({changed[0]}{more}); use another --out, or --fresh to "
                    f"delete that run and start again{self._length_advice(recipe, changed) if longer else ''}"
                )
        elif self.path.is_dir() and any(item.name != UNNAMED for item in self.path.iterdir()):
            raise UsageError(f"--out {self.path} is not empty and holds no run; name a new folder")

    def clear(self) -> None:
        """Remove the run's files; others stay."""
        for name in (CHECKPOINTS, TENSORBOARD, PICTURES):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (LOG, REPORT, TRACKERS, FROZEN, INFO, RECIPE):
            (self.path / name).unlink(missing_ok=True)

    def check(self, info: RunInfo) -> None:
        """RunMismatch when a run made from something else is there already."""
        if (self.path / INFO).is_file():
            refuse_difference(self.info().identity(), info.identity(), str(self.path))

    def record(self, recipe: Recipe, info: RunInfo) -> None:
        """Write recipe.yaml, by which the folder is known as a run, and run.json; makes the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_synced(self.path / UNNAMED, recipe.to_yaml().encode())
        (self.path / UNNAMED).replace(self.path / RECIPE)
        write_json(self.path / INFO, info.model_dump(mode="json"))
