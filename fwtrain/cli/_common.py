"""What the commands share: options, and the result on stdout."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import inspect
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from fwdata.console import emit_json
from fwdata.errors import UsageError

if TYPE_CHECKING:
    from fwtrain.infer.policy import Policy
    from fwtrain.model import Denoising

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all physical cores, up to 8).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Compiled = Annotated[bool, typer.Option("--compile", help="Layers through torch.compile.")]
WhichCheckpoint = Annotated[
    str, typer.Option("--checkpoint", metavar="WHICH", help="last, best (by validation), or a step.")
]
RecipeName = Annotated[
    str | None, typer.Option(help="Recipe name (see fwtrain recipes) or path of a .yaml file; required.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, as written by fwtrain run.")]
Mode = Annotated[
    str | None, typer.Option(metavar="MODE", help="Of a variant with several: idm or first-frame (default: the first).")
]
Shift = Annotated[
    str | None,
    typer.Option(
        metavar="SHIFT",
        help="Time shift of the sampling grids, as upstream's sigma_shift: one number for both streams, or "
        "VIDEO,ACTION (default: those the run was trained with; others sample on another grid).",
    ),
]


SHORTEST_TOKEN = 16
"""Characters of a server's secret."""

Vae = Annotated[str | None, typer.Option(help="VAE, where the one of the run's latents has moved.")]


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Without garbage collection, also at the end of the process: in a command of seconds that imports torch, looking
    through torch's objects again and again is a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_token(path: Path) -> str:
    """The secret of a server in a file that only its owner can read. UsageError for any other file."""
    if not path.is_file():
        raise UsageError(f"token file {path} does not exist")
    try:
        token = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise UsageError(f"token file {path} is not text") from None
    if len(token) < SHORTEST_TOKEN:
        found = f"has {len(token)} characters, at least {SHORTEST_TOKEN} are needed" if token else "is empty"
        raise UsageError(f"token file {path} {found}")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"token file {path} can be read by others; chmod 600 {path}")
    return token


def need_recipe(name: str | None) -> str:
    """The recipe that was named. UsageError with the known ones where none was."""
    from fwtrain.recipe import recipe_names

    if name is None:
        raise UsageError(f"choose a recipe with --recipe: {', '.join(recipe_names())}, or the path of a .yaml file")
    return name


@dataclass(frozen=True)
class PolicyOptions:
    """What every command that acts with a run's policy is asked: which weights, where, and how they sample."""

    run: Path
    """The run's folder."""
    checkpoint: str
    """last, best or a step."""
    mode: str | None
    """Of a variant with several; None: its first."""
    shift: str | None
    """One or two numbers as text; None: the run's own."""
    device: str
    """auto, cpu, cuda or cuda:N."""

    def sampling(self, steps: int) -> Denoising:
        """How to sample. UsageError for no step at all and for a shift that is not one or two numbers."""
        from fwtrain.model import Denoising

        if steps < 1:
            raise UsageError(f"--steps must be at least 1, found {steps}")
        video = action = None
        if self.shift is not None:
            try:
                both = self.shift if "," in self.shift else f"{self.shift},{self.shift}"
                video, action = (float(part) for part in both.split(","))
            except ValueError:
                raise UsageError(f"--shift takes one number, or VIDEO,ACTION, found {self.shift!r}") from None
        return Denoising(steps=steps, mode=self.mode, video_shift=video, action_shift=action)

    def load(
        self, steps: int, vae: str | None, *, untrained: bool = False, seed: int = 0, compiled: bool = False
    ) -> Policy:
        """The policy; see `Policy.load`."""
        from fwtrain.infer.policy import Policy

        return Policy.load(
            self.run,
            vae,
            checkpoint=self.checkpoint,
            untrained=untrained,
            seed=seed,
            device=self.device,
            compiled=compiled,
            sampling=self.sampling(steps),
        )


def _asked(
    run: RunArgument,
    checkpoint: WhichCheckpoint = "last",
    mode: Mode = None,
    shift: Shift = None,
    device: Device = "auto",
    threads: Threads = None,
) -> PolicyOptions:
    from fwtrain.train.run import set_threads

    set_threads(threads)
    return PolicyOptions(run, checkpoint, mode, shift, device)


def with_policy_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with RUN and the options of `PolicyOptions` and --threads in place of its parameter `policy`."""
    shared, own = inspect.signature(_asked), inspect.signature(command)
    types = {**get_type_hints(command, include_extras=True), **get_type_hints(_asked, include_extras=True)}

    @functools.wraps(command)
    def asking(**given: Any) -> None:
        policy = _asked(**{name: given.pop(name) for name in shared.parameters})
        command(policy=policy, **given)

    chosen = [*shared.parameters.values(), *(p for name, p in own.parameters.items() if name != "policy")]
    keywords = [p.replace(kind=p.KEYWORD_ONLY, annotation=types[p.name]) for p in chosen]
    asking.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    asking.__annotations__ = {p.name: types[p.name] for p in keywords}
    return asking


def sampling_text(sampling: Denoising) -> str:
    """`mode idm, 10 steps, shift 5 (video) and 1 (actions)`."""
    return (
        f"mode {sampling.mode}, {sampling.steps} steps, "
        f"shift {sampling.video_shift:g} (video) and {sampling.action_shift:g} (actions)"
    )


def answer(data: Mapping[str, object], as_json: bool, text: Callable[[], str]) -> None:
    """The result on stdout."""
    if as_json:
        emit_json(data)
    else:
        print(text())
