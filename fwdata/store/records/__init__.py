"""Every record of a store's metadata, typed. `fwdata.store.metadata` reads and writes them.

`arrays`, `evidence` and `statistics` hold those of arrays, verdicts and statistics; the others are offered here.

A record is checked when it is read. Fields that this version does not know are kept, so that a store of a newer minor
version opens and is copied unchanged: what is read and written again has the bytes it had.
"""

from __future__ import annotations

from fwdata.store.records.base import (
    Count,
    Digest,
    JsonObject,
    Number,
    Record,
    SealedRecord,
)
from fwdata.store.records.caches import (
    CacheRecord,
    LatentCacheRecord,
    LatentDraftRecord,
    LatentPartRecord,
    MadeFromRecord,
    StitchedRecord,
    TextCacheRecord,
    TextPartRecord,
    WindowRecord,
)
from fwdata.store.records.part import (
    CameraRecord,
    DetailsRecord,
    EpisodeDecisionsRecord,
    EpisodeRecord,
    FileRecord,
    LeftOutRecord,
    PartRecord,
    SegmentRecord,
    VideoHeaderRecord,
)
from fwdata.store.records.store import (
    FIRST_VERSION,
    CountRecord,
    DecisionsRecord,
    OriginRecord,
    PartSources,
    PlannedEpisodeRecord,
    PlannedPartRecord,
    PlanRecord,
    SkippedRecord,
    StoreRecord,
    ViewRecord,
)

__all__ = [
    "FIRST_VERSION",
    "CacheRecord",
    "CameraRecord",
    "Count",
    "CountRecord",
    "DecisionsRecord",
    "DetailsRecord",
    "Digest",
    "EpisodeDecisionsRecord",
    "EpisodeRecord",
    "FileRecord",
    "JsonObject",
    "LatentCacheRecord",
    "LatentDraftRecord",
    "LatentPartRecord",
    "LeftOutRecord",
    "MadeFromRecord",
    "Number",
    "OriginRecord",
    "PartRecord",
    "PartSources",
    "PlanRecord",
    "PlannedEpisodeRecord",
    "PlannedPartRecord",
    "Record",
    "SealedRecord",
    "SegmentRecord",
    "SkippedRecord",
    "StitchedRecord",
    "StoreRecord",
    "TextCacheRecord",
    "TextPartRecord",
    "VideoHeaderRecord",
    "ViewRecord",
    "WindowRecord",
]
