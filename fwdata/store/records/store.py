"""Records of a store's root, its plan, its view, and of what a part was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from fwdata.io import Json
from fwdata.store.records.base import Count, Digest, JsonObject, Number, OpenRecord, Record
from fwdata.store.records.part import LeftOutRecord

FIRST_VERSION = 1
"""Version of a converter that states none, and of the one that made a part without a record."""


type NamesByRoot = tuple[str, ...] | dict[str, NamesByRoot | None]
"""Names that all roots (or inputs of a merge) share; where they differ, those of each by its name, null: it has none.
An input that was merged itself may hold those of its own inputs."""


class DecisionsRecord(OpenRecord):
    """Conventions of a whole root, by name; other keys are `fwdata.api.Discovery.decisions`.

    Where roots or inputs of a merge differ, a converter's key holds a mapping from root or input to what each decided.
    """

    cameras: NamesByRoot = ()
    """Cameras that are stored, in stitching order."""
    per_episode: NamesByRoot = ()
    """`fwdata.api.Discovery.per_episode`: dotted keys of the episodes' metadata that hold what was decided for each."""


class OriginRecord(Record):
    """One input of a merged store."""

    store: str
    """Short unique name of the input."""
    fingerprint: str
    """Fingerprint of the input when it was merged."""
    parts: Count
    """Parts that came from it."""
    episodes: Count
    """Episodes that came from it."""
    frames: Count
    """Rows that came from it."""
    options: dict[str, Json]
    """The converter's options in its manifest; any JSON that the converter takes."""
    renamed: Count
    """Recordings that got a new id because an earlier input has theirs."""
    roots: tuple[str, ...] = ()
    """`StoreRecord.roots` of the input; this and the next three are absent where its record does not state them."""
    manifest_digest: Digest = ""
    """`StoreRecord.manifest_digest` of the input."""
    writer: str = ""
    """`StoreRecord.writer` of the input."""
    merged: tuple[OriginRecord, ...] = ()
    """`StoreRecord.merged` of an input that was merged itself."""


class StoreRecord(Record):
    """The root of a store: what all of its episodes share."""

    layout_version: Count
    """Version of the on-disk layout."""
    source: str
    """Name of the converter."""
    fps: Number
    """True rate of the rows in Hz."""
    cameras: tuple[str, ...]
    """Names of the cameras in stitching order."""
    state_names: tuple[str, ...]
    """One name per state dimension."""
    action_names: tuple[str, ...]
    """One name per action dimension."""
    manifest: dict[str, Json]
    """The dataset's manifest as it was; checked by `Store.manifest`, against the manifest's own definition."""
    fps_nominal: Number | None = None
    """Rate that the source is labelled with, in Hz, where it differs from `fps`."""
    units: dict[str, str] = Field(default_factory=dict)
    """Units of state and action, as the manifest declares them."""
    stitch_hash: str = ""
    """Digest of the stitching that the store was made with."""
    manifest_digest: Digest = ""
    """sha256 of the manifest; see `Manifest.digest`."""
    decisions: DecisionsRecord = Field(default_factory=lambda: DecisionsRecord())
    """Conventions that were decided for the whole root, by name."""
    roots: tuple[str, ...] = ()
    """Names of the folders that were converted."""
    merged: tuple[OriginRecord, ...] = ()
    """The stores that it was merged from, in order; empty for a converted store."""
    writer: str = ""
    """Name and version of the program that wrote it."""
    named_dimensions: bool = False
    """Whether arrays name their dimensions, as xarray asks. False in stores of earlier releases, which are continued
    and repaired as they were begun, so that their digests stay."""

    @property
    def per_episode(self) -> tuple[str, ...]:
        """Dotted keys of the episodes' metadata that hold decisions, of all roots and inputs together."""
        return tuple(dict.fromkeys(all_names(self.decisions.per_episode)))


def all_names(names: NamesByRoot | None) -> Iterator[str]:
    """The names of all roots and inputs, one after another; those that several have come again."""
    if isinstance(names, dict):
        for below in names.values():
            yield from all_names(below)
    elif names is not None:
        yield from names


class PlannedEpisodeRecord(Record):
    """A recording of the plan."""

    id: str
    """Id of its episode."""
    source: str
    """The recording, as the store calls it."""
    bytes: Count
    """Its size in the source."""


class PlannedPartRecord(Record):
    """A part of the plan."""

    name: str
    """Name of its folder below `parts`."""
    group: str
    """Natural unit that its recordings share."""
    episodes: tuple[PlannedEpisodeRecord, ...]
    """Its recordings, in conversion order."""
    plan: str = ""
    """What the part records of its plan, where a repair could not learn the sizes of then; absent where it follows from
    them."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each recording by id, which `fwdata.store.files.plan_digest` is computed from."""
        return {episode.id: episode.bytes for episode in self.episodes}


class CountRecord(Record):
    """Recordings that were not taken, for one reason; see `fwdata.api.LeftOut`."""

    reason: str
    """What they are and why they are not taken."""
    count: Count
    """How many there are."""
    examples: tuple[str, ...]
    """One or two of them."""
    asked: bool = False
    """Whether an option of the user leaves them out."""


class SkippedRecord(LeftOutRecord):
    """A recording that discovery left out."""

    damaged: bool = False
    """Whether it cannot be converted, as its files are missing or damaged; False also in stores of earlier releases."""


class PlanRecord(Record):
    """The plan of a conversion: which recording belongs to which part, and what discovery left out."""

    parts: tuple[PlannedPartRecord, ...]
    """In conversion order; parts of later runs come last."""
    skipped: tuple[SkippedRecord, ...]
    """Recordings that discovery left out."""
    warnings: tuple[str, ...]
    """Sentences of discovery for the user."""
    left_out: tuple[CountRecord, ...] = ()
    """Recordings that were not taken although nothing is wrong with them, counted by reason."""
    exclude: tuple[str, ...] = ()
    """Names of recordings that `--exclude` left out."""
    only: tuple[str, ...] = ()
    """Names of the recordings that `--only` took."""


class ViewRecord(Record):
    """What a store knows of its view besides the manifest it was converted with."""

    given: tuple[str, ...] | None = None
    """Dotted keys that the manifest states; None: not recorded, a value that equals its default counts as default."""
    manifest: dict[str, Json] | None = None
    """View of a later manifest, plain JSON; None: the one the store was converted with."""
    set: dict[str, Json] = Field(default_factory=dict)
    """Values set later, by dotted key."""

    def to_json(self) -> JsonObject:
        """The record as it is stored: every field, those at their defaults included."""
        return self.model_dump(mode="json")


class PartSources(Record):
    """The record of one part."""

    part: str
    """Name of the part."""
    version: int = FIRST_VERSION
    """Version of the converter that read the part's recordings."""
    mtime_ns: Mapping[str, int] = Field(default_factory=dict)
    """Time of last change of every source file in nanoseconds, by the path that the part's metadata record."""
    digests: Mapping[str, Digest] = Field(default_factory=dict)
    """sha256 of every source file, as the part's metadata record it: known where these are lost. Absent in stores of
    earlier releases."""
    bytes: Mapping[str, Count] = Field(default_factory=dict)
    """Size of source files that changed since, though not in what they hold of the part's recordings; the metadata of
    the part keep the size of then. Absent where there are none."""
    entries: Mapping[str, Mapping[str, Digest]] = Field(default_factory=dict)
    """Files that list many recordings -> episode id -> digest of what the file says of it; see `EpisodeRef.entries`.
    Absent where there are none, and in stores of earlier releases."""
    place: str = ""
    """Digest of where the folder of the recordings was; "" where an earlier release, or a repair, did not record it."""
