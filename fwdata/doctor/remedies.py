"""The command that fixes a finding, for a store or for recordings that are not converted yet."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path

from fwdata.evidence.records import MAX_LISTED, DatasetVerdict
from fwdata.evidence.sentences import OWN_COLUMNS, advice
from fwdata.images.layouts import nearest_size
from fwdata.install import library_command
from fwdata.manifest import IMAGE_STEP, Manifest, load_manifest, manifest_names
from fwdata.pipeline.registry import filled_options


@dataclass(frozen=True)
class Patient:
    """What is examined, as commands name it."""

    where: str
    """Path or URL of the store, or the folder of recordings."""
    source: str
    """Name of the converter."""
    is_store: bool
    """Whether it is a store."""
    cameras: tuple[str, ...] = ()
    """Cameras that are stitched."""
    given: tuple[str, ...] = ()
    """Flags of the conversion that the user gave already, as typed; of a store those that give its manifest again."""
    camera_size: tuple[int, int] = (IMAGE_STEP, IMAGE_STEP)
    """(height, width) in pixels that every camera is resized to before it is stitched."""
    stored: tuple[str, ...] = ()
    """All cameras, those too that are not stitched."""
    accepted: Mapping[str, str] = field(default_factory=dict)
    """Detector -> why the conversion of the store kept what it contradicts, which another one must be given again."""
    picked: tuple[tuple[str, str], ...] = ()
    """("exclude" or "only", name) of the recordings that the conversion of the store left out, or took alone."""

    @property
    def raw(self) -> str:
        """The recordings as the command line takes them, quoted; RAW where only the store is known."""
        return "RAW" if self.is_store else shlex.quote(self.where)

    def fetching(self, text: str) -> str:
        """The command that a reason gives, done in the folder of the recordings; empty where it gives none."""
        is_file = not self.is_store and Path(self.where).is_file()
        return command_in(text, shlex.quote(str(Path(self.where).parent)) if is_file else self.raw)

    def leaves_out(self, subject: str) -> tuple[str, ...]:
        """Cameras of a subject such as "image and wrist_image" that the store holds and the view does not stitch."""
        names = subject.split(" and ")
        return tuple(name for name in names if name in self.stored and name not in self.cameras)

    def convert(self, *options: str) -> str:
        """`fwdata convert` of the recordings with further options."""
        given = self.given
        other = any(option.startswith(("--manifest", OWN_COLUMNS)) for option in options)
        if other and "--manifest" in given:
            at = given.index("--manifest")
            given = given[:at] + given[at + 2 :]
        asked = " ".join(options)
        kept = [] if asked.startswith("--only ") else [f"--{how} {shlex.quote(name)}" for how, name in self.picked]
        kept += [
            f"--accept {n}={shlex.quote(why)}" for n, why in self.accepted.items() if f"--accept {n}=" not in asked
        ]
        flags = [*map(shlex.quote, given), *kept, *options]
        return " ".join(["fwdata convert", self.source, self.raw, "--out NEW.zarr", *flags])

    def again(self, *options: str) -> str:
        """The conversion that made the store, which continues it."""
        out = f"--out {shlex.quote(self.where)}"
        return " ".join(["fwdata convert", self.source, "RAW", out, *map(shlex.quote, self.given), *options])

    def retry(self) -> str:
        """A conversion to the same store that tries what was quarantined again."""
        return self.again("--retry-quarantined")

    def view(self, *settings: str, accept: Sequence[str] = ()) -> str:
        """`fwdata view --set` on the store; for recordings after a conversion to a new one.

        accept: detectors that stop that conversion although the view makes their findings good.
        """
        store = shlex.quote(self.where) if self.is_store else "NEW.zarr"
        change = " ".join(["fwdata view", store, *(f"--set {shlex.quote(setting)}" for setting in settings)])
        if self.is_store:
            return change
        kept = (f"--accept {name}={shlex.quote('the view makes it good')}" for name in dict.fromkeys(accept))
        return f"{self.convert(*kept)} && {change}"

    def looking(self, detector: str) -> str:
        """`fwdata preview` of the store; for recordings after a conversion that keeps what the detector stops."""
        if self.is_store:
            return f"fwdata preview {shlex.quote(self.where)}"
        return f"{self.convert(f'--accept {detector}={shlex.quote("to look at it")}')} && fwdata preview NEW.zarr"

    def stitching(self, cameras: Sequence[str]) -> tuple[str, ...]:
        """Settings of a view that stitches these cameras side by side, in the nearest size that can be encoded."""
        settings = ("stitch.layout=horizontal", f"stitch.cameras=[{', '.join(cameras)}]")
        height, width = self.camera_size
        joined = height, width * len(cameras)
        if not any(side % IMAGE_STEP for side in joined):
            return settings
        size = nearest_size("horizontal", len(cameras), self.camera_size, joined, IMAGE_STEP)
        return (*settings, f"stitch.size=[{size[0]}, {size[1]}]") if size else settings

    def without(self, episodes: Sequence[str], total: int, count: int | None = None) -> str:
        """A conversion that leaves episodes out; nothing where they are more than half of all `total`.

        count: how many they are, where `episodes` lists the first of them.
        """
        several = len(episodes) if count is None else count
        if not episodes or 2 * several > total:
            return ""
        shown = episodes[:MAX_LISTED]
        rest = f"  # and {several - len(shown)} more: run the doctor again" if several > len(shown) else ""
        return self.convert(*(f"--exclude {shlex.quote(name)}" for name in shown)) + rest

    def apart(self, episodes: Sequence[str], count: int, option: str) -> str:
        """A conversion of these episodes alone, with an option that the others must not have; `count` of `without`."""
        if not episodes:
            return ""
        shown = episodes[:MAX_LISTED]
        more = f"all {count} of them; " if count > len(shown) else ""
        chosen = [f"--only {shlex.quote(name)}" for name in shown]
        return f"{self.convert(*chosen, *filter(None, [option]))}  # {more}the others without this, to another store"

    def option_in(self, text: str) -> str:
        """A conversion with the option that a warning of the converter names; empty where it names none."""
        flag = _FLAG.search(text)
        if flag is not None:
            return self.convert(flag.group(1))
        found = _OPTION.search(text)
        if found is None:
            return ""
        name, value = found.groups()
        return self.convert(f"--set {name}={value or 'VALUE'}") + ("" if value else self._values)

    @property
    def _values(self) -> str:
        return f"  # VALUE: see fwdata convert {self.source} --help"


def flags_of(manifest: Manifest) -> tuple[str, ...]:
    """Flags that give a store's manifest again, where it is a built-in one with other options: without them a further
    conversion would change the view, or be refused. () where it is the source's own, or a file that is not known."""
    if manifest.name not in manifest_names():
        return ()
    source = manifest.converter
    known = filled_options(source, load_manifest(manifest.name).options)
    own = filled_options(source, manifest.options)
    named = ("--manifest", manifest.name) if manifest.name != source else ()
    changed = [name for name, value in sorted(own.items()) if value != known.get(name) and not isinstance(value, dict)]
    return (*named, *(f"--set={name}={dumps(own[name])}" for name in changed))


_OPTION = re.compile(
    r"\boption (?!that\b)([a-z_]+) (?:= ([\w.-]+)|(?:is|sets|takes|says|decides|gives|converts|uses)\b)"
)
"""An option that a warning names, such as "option clock = shift" or "option task sets another"."""


_FLAG = re.compile(r"(--recover|--[a-z][a-z-]* [\w.=-]+),? (?:which )?(?:reads|takes|gives|keeps|converts)\b")
"""A flag that a reason names, such as "--colour rgb reads it as the video" and "--recover, which reads"."""

_COMMAND = re.compile(
    r"git lfs install && git lfs pull(?: --include '[^']*')?|hf download [^;,()`]+|git xet checkout"
    r"|git annex get (?:--include=)?'[^']*'|pip install \w+|find \. .+? \{\} \\;"
)
"""A command that the reason of a recording left out gives: it fetches or unpacks the content."""


_BEGINS = re.compile(r"(?:^|(?<=&& ))(?:(git )|find \. )")
"""Where a command begins that works in the folder of the recordings."""


def command_in(text: str, where: str = "") -> str:
    """The command that a reason gives; empty where it gives none.

    where: the folder of the recordings, quoted, for the commands that work in it; empty: it is not known.
    """
    found = _COMMAND.search(text)
    if found is None:
        return ""
    command = found.group().strip()
    if command.startswith("pip install "):
        return library_command(command.removeprefix("pip install "))
    if not where:
        return command
    return _BEGINS.sub(lambda begun: f"git -C {where} " if begun[1] else f"find {where} ", command)


SINGLE = {
    "unwritten_rows",
    "start_pose",
    "same_images",
    "one_look",
    "same_arms",
    "scene_cut",
    "exchanged_columns",
    "camera_motion",
    "coarse_values",
    "repeated_rows",
    "unit_within",
    "quaternion_length",
    "quaternion_order",
    "still_columns",
    "step_size",
    "held_rows",
}
"""Detectors of faults in the recording of single episodes."""

OF_CAMERA = {"camera_frozen", "camera_content", "camera_delay", "camera_quarter_turn"}
"""Detectors whose finding is fixed by training without the camera, where most episodes show it."""

TEXTS = {
    "instruction_typos",
    "instruction_ending",
    "instruction_task",
    "instruction_placeholder",
    "instruction_garbled",
}

PER_EPISODE = SINGLE | OF_CAMERA | TEXTS | {"column_units", "duplicate_episodes", "one_scale"}
"""Detectors whose finding is fixed by leaving the episodes out."""

IN_THE_RECORDING = SINGLE | {"state_delay", "camera_delay", "gripper_open_end"}
"""Detectors whose finding no manifest can correct; what was decided is kept, or the data are recorded again."""

_ORDER = "stitch.cameras: "
"""How an option begins that stitches the cameras in another order."""


def remedy(
    patient: Patient, verdict: DatasetVerdict, total: int, option: str = "", stopping: Sequence[str] = ()
) -> str:
    """The command for what a verdict found.

    total: episodes; option: flag or manifest key that agrees with the data; stopping: other detectors that stop, too,
    for exchanged cameras alone.
    """
    if verdict.verdict in ("confirmed", "mixed"):  # what would suit the exceptions would be wrong for the others
        fix = patient.without(verdict.episodes, total, verdict.against)
        kinds = bool(option) or verdict.detector not in PER_EPISODE | IN_THE_RECORDING  # of recordings, both right
        if not fix and verdict.verdict == "mixed" and kinds:
            fix = patient.apart(verdict.episodes, verdict.against, option if option.startswith("--") else "")
        if fix:
            return fix
    if verdict.detector == "one_scale" and 2 * verdict.against >= verdict.episodes_for + verdict.against:
        return patient.apart(verdict.episodes, verdict.against, "")  # either kind may be the right one
    if option.startswith(_ORDER) and verdict.action != "note":
        order = f"stitch.cameras={option.removeprefix(_ORDER)}"
        return patient.view(order, accept=[verdict.detector, *stopping] if verdict.action == "stop" else ())
    if option and (option.startswith("--") or verdict.action == "stop"):
        return patient.convert(option if option.startswith("--") else f"--manifest CORRECTED.yaml  # {option}")
    if verdict.detector in PER_EPISODE:
        copies = verdict.detector == "duplicate_episodes"  # one of each stays, however many there are
        fix = patient.without(verdict.episodes, total + verdict.against * copies, verdict.against)
        if fix:
            return fix
    if verdict.detector in OF_CAMERA:
        dropped = verdict.subject.split(" and ")[-1]
        others = [name for name in patient.cameras if name != dropped]
        if dropped in patient.cameras and others:
            return patient.view(*patient.stitching(others), accept=[verdict.detector] * (verdict.action == "stop"))
    if verdict.action == "note":
        return ""
    return patient.convert(f"--accept {verdict.detector}=WHY  # keeps it as it is; to correct it: {advice(verdict)}")
