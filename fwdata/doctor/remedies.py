"""The command that fixes a finding, for a store or for recordings that are not converted yet."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps

from fwdata.evidence.records import MAX_LISTED, DatasetVerdict
from fwdata.evidence.registry import find_detector
from fwdata.manifest import Manifest, load_manifest, manifest_names
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

    def convert(self, *options: str) -> str:
        """`fwdata convert` of the recordings with further options."""
        given = self.given
        if any(option.startswith("--manifest") for option in options) and "--manifest" in given:
            at = given.index("--manifest")
            given = given[:at] + given[at + 2 :]
        raw = "RAW" if self.is_store else shlex.quote(self.where)
        return " ".join(["fwdata convert", self.source, raw, "--out NEW.zarr", *map(shlex.quote, given), *options])

    def retry(self) -> str:
        """A conversion to the same store that tries what was quarantined again."""
        again = [
            "fwdata convert",
            self.source,
            "RAW",
            f"--out {shlex.quote(self.where)}",
            *map(shlex.quote, self.given),
        ]
        return " ".join([*again, "--retry-quarantined"])

    def view(self, *settings: str) -> str:
        """`fwdata view --set` on the store; on one that is still to be made for recordings."""
        store = shlex.quote(self.where) if self.is_store else "NEW.zarr"
        return " ".join(["fwdata view", store, *(f"--set {shlex.quote(setting)}" for setting in settings)])

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


_COMMAND = re.compile(
    r"git lfs install && git lfs pull(?: --include '[^']*')?|hf download [^;,()`]+|git xet checkout"
    r"|git annex get '[^']*'|pip install \w+|find \. .+? \{\} \\;"
)
"""A command that the reason of a recording left out gives: it fetches or unpacks the content."""


def command_in(text: str) -> str:
    """The command that a reason gives; empty where it gives none."""
    found = _COMMAND.search(text)
    return found.group().strip() if found else ""


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

PER_EPISODE = SINGLE | OF_CAMERA | TEXTS | {"column_units", "duplicate_episodes"}
"""Detectors whose finding is fixed by leaving the episodes out."""

IN_THE_RECORDING = SINGLE | {"state_delay", "camera_delay", "gripper_open_end"}
"""Detectors whose finding no manifest can correct; what was decided is kept, or the data are recorded again."""


def remedy(patient: Patient, verdict: DatasetVerdict, total: int, option: str = "") -> str:
    """The command for what a verdict found. total: episodes; option: flag or manifest key that agrees with the data."""
    if verdict.verdict in ("confirmed", "mixed"):  # what would suit the exceptions would be wrong for the others
        fix = patient.without(verdict.episodes, total, verdict.against)
        kinds = bool(option) or verdict.detector not in PER_EPISODE | IN_THE_RECORDING  # of recordings, both right
        if not fix and verdict.verdict == "mixed" and kinds:
            fix = patient.apart(verdict.episodes, verdict.against, option if option.startswith("--") else "")
        if fix:
            return fix
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
            return patient.view("stitch.layout=horizontal", f"stitch.cameras=[{', '.join(others)}]")
    if verdict.action == "note":
        return ""
    if verdict.detector in IN_THE_RECORDING:
        return patient.convert(f"--accept {verdict.detector}=WHY")
    return patient.convert(f"--manifest CORRECTED.yaml  # {find_detector(verdict.detector).advice}")
