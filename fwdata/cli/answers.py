"""The documents of `--json` that commands of `fwdata` put together themselves; `fwdata.cli.documents` lists all."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from fwdata.api import Json
from fwdata.doctor.findings import CheckupJson
from fwdata.pipeline.status import WorkJson
from fwdata.pipeline.units import ShardJson
from fwdata.quickstart.results import QuickstartSummary
from fwdata.report.conversion import ConversionJson
from fwdata.store.records import OriginRecord


class ConvertJson(ConversionJson):
    """The document of `fwdata convert --json`."""

    shard: NotRequired[ShardJson]
    """What this process did, where others work on the same store."""


class VerifyJson(TypedDict):
    """The document of `fwdata verify --json`."""

    files: int
    """Files that were read."""
    total_files: int
    """Files of the store."""
    bytes: int
    """Bytes that were read."""
    sample: float
    """Share of the data files that was asked for, 0 .. 1."""
    damaged: list[str]
    """A sentence for each damaged, missing or unknown file; empty: the store is whole."""


class PreviewJson(TypedDict):
    """The document of `fwdata preview --json`."""

    page: str
    """The page."""
    out: str
    """Folder of the page and its images."""
    episodes: list[int]
    """Indices of the episodes shown."""
    rerun: str | None
    """File for the rerun viewer; null: none was asked for."""


class StorePageJson(TypedDict):
    """The document of `fwdata report --json`."""

    page: str
    """The page."""
    bytes: int
    """Its size."""
    episodes: int
    """Episodes of the store."""
    frames: int
    """Their rows."""
    findings: dict[str, int]
    """The doctor's findings by severity: stop, warn, note."""
    odd_lengths: list[str]
    """Ids of episodes that are much shorter or longer than most."""
    gaps: list[str]
    """Ids of episodes with gaps in their time stamps."""


class DoctorJson(CheckupJson):
    """The document of `fwdata doctor --json`."""

    exit_code: int
    """With what the command ends."""


class RepairJson(TypedDict):
    """The document of `fwdata repair --json`."""

    steps: list[str]
    """What was rebuilt, or would be."""
    left: list[str]
    """What is damaged still, or cannot be rebuilt."""
    dry_run: bool
    """Whether nothing was written."""
    unfit: NotRequired[list[str]]
    """With --dry-run: a sentence for each recording given that does not fit."""


class StitchJson(TypedDict):
    """The document of `fwdata stitch --json`."""

    frames: int
    """Frames stitched by this run."""
    shard: NotRequired[ShardJson]
    """What this process did, where others work on the same store."""


class TextJson(TypedDict):
    """The document of `fwdata encode-text --json`."""

    name: str
    """Name of the cache."""
    prompts: int
    """Distinct prompts of the store."""
    encoded: int
    """Those encoded by this run."""
    shard: NotRequired[ShardJson]
    """What this process did, where others work on the same store."""


class LatentsJson(TypedDict):
    """The document of `fwdata encode-latents --json`."""

    name: str
    """Name of the cache."""
    fingerprint: str
    """Its identity, short."""
    first: int
    """First-frame latents encoded by this run."""
    windows: int
    """Windows whose future latents this run encoded."""
    seconds: float
    """Time of this run."""
    latents_per_second: float
    """Latents per second."""
    vae_share: float
    """Share of that time inside the VAE, 0 .. 1."""
    psnr: float | None
    """PSNR of a few decoded frames, dB; null: nothing was encoded."""
    shard: NotRequired[ShardJson]
    """What this process did, where others work on the same store."""


class LatentsDryRunJson(TypedDict):
    """The document of `fwdata encode-latents --dry-run --json`."""

    frames: int
    """First-frame latents of the whole cache."""
    windows: int
    """Windows with future latents of the whole cache."""
    bytes: int
    """Size of the whole cache."""


class MergeJson(TypedDict):
    """The document of `fwdata merge --json`."""

    out: str
    """The store."""
    episodes: int
    """Episodes of the whole store."""
    frames: int
    """Their rows."""
    files: int
    """Files copied by this run."""
    seconds: float
    """Time of this run."""
    notes: list[str]
    """What did not come along, one sentence each."""


class MergeDryRunJson(TypedDict):
    """The document of `fwdata merge --dry-run --json`."""

    episodes: int
    """Episodes of the whole store."""
    frames: int
    """Their rows."""
    files: int
    """Files that would be copied."""
    caches: list[str]
    """Caches that would come along."""
    notes: list[str]
    """What would not, one sentence each."""
    merged: list[OriginRecord]
    """The stores it would be merged from."""


class CopyJson(TypedDict):
    """The document of `fwdata copy --json`."""

    files: int
    """Files of the store."""
    copied: int
    """Those copied by this run."""
    bytes: int
    """Bytes copied by this run."""


class SampleJson(TypedDict):
    """The document of `fwdata sample --json`."""

    episodes: int
    """Recordings in the folder."""
    frames: int
    """Their rows."""
    bytes: int
    """Size of the folder."""
    out: str
    """The folder."""


class SimulatedJson(TypedDict):
    """The document of `fwdata sample --simulator --json`."""

    episodes: int
    """Recordings in the folder."""
    frames: int
    """Their rows."""
    failed: int
    """Attempts of the experts that failed."""
    out: str
    """The folder."""


class QuickstartJson(QuickstartSummary):
    """The document of `fwdata quickstart --json`."""

    report: str
    """The page about it all."""
    steps: dict[str, Json]
    """Documents of the commands that were run, by step."""


class InitJson(TypedDict):
    """The document of `fwdata init --json`."""

    folder: str
    """Folder of the new converter."""
    files: list[str]
    """Files that were written."""
    cameras: list[str]
    """Cameras found in the recording, or placeholders."""
    state: list[str]
    """Columns of the state."""
    action: list[str]
    """Columns of the action."""
    fps: float
    """Rate of the rows, Hz."""
    unused: list[str]
    """Columns of numbers, one per row, in neither state nor action."""


class StatusJson(TypedDict):
    """The document of `fwdata status --json`."""

    store: str
    """The store."""
    work: list[WorkJson]
    """What there is to do, done or not."""


class LeftoverJson(TypedDict):
    """A file or folder that a killed process left."""

    path: str
    """Below the store."""
    age_s: int
    """Seconds since anything in it changed."""
    bytes: int
    """Its size."""


class CleanJson(TypedDict):
    """The document of `fwdata clean --json`."""

    store: str
    """The store."""
    removed: list[LeftoverJson]
    """What was removed; empty with --dry-run."""
    found: list[LeftoverJson]
    """What was found."""


class SlurmJson(TypedDict):
    """The document of `fwdata slurm --json`."""

    script: str
    """The script, for sbatch or bash."""
    shards: int
    """Tasks of the array."""


class TransferJson(TypedDict):
    """The document of `fwdata push --json` and `fwdata pull --json`."""

    repository: str
    """OWNER/NAME on the hub."""
    store: str
    """The local store."""
    moved: int
    """Files transferred by this run."""
    files: int
    """Files of the store, or of the caches."""
    fingerprint: str
    """Of the episodes that the caches belong to."""


class ExportLerobotJson(TypedDict):
    """The document of `fwdata export lerobot --json`."""

    out: str
    """Folder of the dataset."""
    episodes: int
    """Its episodes."""
    frames: int
    """Their rows."""
    fps: int
    """Its rate, Hz: LeRobot knows whole numbers."""
    cameras: dict[str, tuple[int, int]]
    """Camera -> height and width, pixels."""
    decisions: list[str]
    """What was decided to fit the format, one sentence each."""
    seconds: NotRequired[float]
    """Time of this run; absent with --dry-run."""
    repository: str | None
    """Where it was uploaded to; null: nowhere."""


class ExportTextJson(TypedDict):
    """The document of `fwdata export fastwam-text --json`."""

    out: str
    """Folder of the files."""
    prompts: int
    """Prompts of the cache."""
    written: int
    """Files written by this run."""


class RateJson(TypedDict):
    """One way of doing the same work."""

    name: str
    """What was done."""
    per_cpu_second: float
    """Units per CPU second."""
    ratio: float
    """Of the first way's rate."""


class BenchReadJson(TypedDict):
    """The document of `fwdata bench read --json`."""

    unit: str
    """What is counted."""
    rows: list[RateJson]
    """The ways; the first is the one that others are compared with."""


class EncodeWayJson(TypedDict):
    """One way of encoding the same rows."""

    name: str
    """What was done."""
    windows: int
    """Windows with future latents."""
    frames: int
    """Frames that were encoded alone."""
    seconds: float
    """Wall time."""
    vae_seconds: float
    """Of it inside the VAE."""
    cpu_seconds: float
    """CPU time of the encoding process."""
    windows_per_second: float
    """Windows per second, the single frames between them included."""


class BenchEncodeJson(TypedDict):
    """The document of `fwdata bench encode --json`."""

    device: str
    """Name of the GPU, or "cpu"."""
    dtype: str
    """What the VAE computed in."""
    of_vae: float
    """Share of the VAE's own speed that encoding reaches."""
    ways: list[EncodeWayJson]
    """The ways."""
