"""What all records are made of: checked when read, immutable, unknown fields kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from fwdata.field_docs import DocumentedModel
from fwdata.io import Json
from fwdata.store.files import json_digest

type JsonObject = dict[str, Any]
"""A JSON object that was read or is to be written as a whole, whatever it holds; fields of records are typed."""


type Count = Annotated[int, Field(strict=True, ge=0)]
"""A number of things; not negative, and not a number in quotes."""


type Number = Annotated[float, Field(strict=True)]
"""A finite number."""


type Digest = str
"""sha256 in hex."""


class Record(DocumentedModel):
    """Base of all records: immutable, unknown fields kept, and written with exactly the fields that were set."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def to_json(self) -> JsonObject:
        """The record as it is stored: the fields that were read or set, unknown ones included."""
        return self.model_dump(mode="json", exclude_unset=True)

    def digest(self) -> Digest:
        """sha256 of the stored record, which is what `zarr.json` carries and what caches refer to. Computed anew."""
        return json_digest(self.to_json())


class OpenRecord(Record):
    """A record whose fields are fwdata's and whose other keys are a converter's own."""

    __pydantic_extra__: dict[str, Json] = Field(init=False)
    """Any JSON, which fwdata stores, compares and shows, and never steers by."""

    @model_serializer(mode="wrap")
    def _by_name(self, handler: SerializerFunctionWrapHandler) -> JsonObject:
        """By name, as a store keeps them, in place of the fields first."""
        found: JsonObject = handler(self)
        return dict(sorted(found.items()))


class SealedRecord(Record):
    """What every complete folder has. Written last, when everything else is there."""

    state: Literal["complete"]
    """Tells a complete folder from one that is still written."""
    digests: dict[str, Digest]
    """sha256 of every file below the folder by path; its own zarr.json excepted, and of a part its stitched frames."""

    def array_digest(self, name: str) -> Digest:
        """sha256 of an array's metadata; empty, which no metadata match, for an array that the folder does not list."""
        return self.digests.get(f"{name}/zarr.json", "")
