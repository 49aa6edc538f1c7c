"""Checked models: plain data to a pydantic model, with every fault named in plain words.

One message lists all faults of a manifest or recipe: unknown keys first, since a misspelt key explains a missing one.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from fwdata.errors import ManifestError, did_you_mean
from fwdata.field_docs import DocumentedModel
from fwdata.io import shortened

MOST_FAULTS = 12
"""Faults of one document that a message lists; the others are counted."""


class Model(DocumentedModel):
    """Base of manifest and recipe models: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)

    @classmethod
    def first_faults(cls, errors: list[ErrorDetails], data: object) -> list[ErrorDetails]:
        """Those of pydantic's errors that a user has to fix; data: what was checked. Here all of them."""
        return errors


def load_yaml(text: str) -> object:
    """Plain data of a YAML document, a copy of its own; manifests and recipes are asked for many times.

    Raises yaml.YAMLError in the words of the parser in Python.
    """
    with contextlib.suppress(RecursionError):
        return copy.deepcopy(_kept_yaml(text))
    return _parsed_yaml(text)


@lru_cache(maxsize=64)
def _kept_yaml(text: str) -> object:
    """What `_parsed_yaml` returns, the same objects every time."""
    return _parsed_yaml(text)


def _parsed_yaml(text: str) -> object:
    """Plain data, by the parser in C where there is one: eight times faster, other error texts."""
    if hasattr(yaml, "CSafeLoader"):
        with contextlib.suppress(yaml.YAMLError):
            loader = yaml.CSafeLoader(text)
            try:
                return loader.get_single_data()
            finally:
                loader.dispose()
    return yaml.safe_load(text)


def parse_model[M: BaseModel](model: type[M], text: str, where: str) -> M:
    """YAML text to a checked model; ManifestError with one sentence that names the wrong keys."""
    try:
        data = load_yaml(text)
    except yaml.YAMLError as error:
        raise ManifestError(f"{where} is not valid YAML: {_yaml_fault(error)}") from None
    if not isinstance(data, dict):
        raise ManifestError(f"{where} must be a mapping of keys to values, found {type(data).__name__}")
    return validate_model(model, data, where)


def _yaml_fault(error: yaml.YAMLError) -> str:
    """`line 2, column 3: expected ',' or ']', but got ':'`."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())


def validate_model[M: BaseModel](model: type[M], data: object, where: str) -> M:
    """Checked model from plain data; ManifestError with one sentence that names the wrong keys."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors = error.errors()
        if issubclass(model, Model):
            errors = model.first_faults(errors, data)
        faults = _faults(model, errors)
        more = f"; and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise ManifestError(f"{where}: {'; '.join(faults[:MOST_FAULTS])}{more}") from None


def _faults(model: type[BaseModel], errors: Sequence[ErrorDetails]) -> list[str]:
    """One sentence for every fault, unknown keys first, each key once."""
    found: dict[str, str] = {}
    errors = [{**error, "loc": _without_choices(error["loc"])} for error in errors]
    lists = {error["loc"][:-1] for error in errors if error["loc"] and isinstance(error["loc"][-1], int)}
    errors = [e for e in errors if e["type"] != "too_short" or e["loc"] not in lists]  # counts good values alone
    for error in sorted(errors, key=lambda item: item["type"] != "extra_forbidden"):
        location = error["loc"]
        if error["type"] == "missing" and location and isinstance(location[-1], int):  # a position of a tuple
            needed = 1 + max(int(e["loc"][-1]) for e in errors if e["loc"][:-1] == location[:-1])
            found.setdefault(_key(location[:-1]), f"{_key(location[:-1])}: needs {needed} values")
        elif error["type"] == "extra_forbidden":
            above = "".join(f"{part}." for part in location[:-1])
            advice = did_you_mean(str(location[-1]), _known_keys(model, location[:-1]))
            advice = advice.replace("did you mean '", f"did you mean '{above}")  # what --set takes
            found.setdefault(_key(location), f"unknown key {_key(location)!r}{advice}")
        elif _key(location) in found and found[_key(location)].startswith(f"{_key(location)}: must be "):
            expected, _, given = found[_key(location)].rpartition(", found ")
            other = _wording(error).removeprefix("must be ").rpartition(", found ")[0]
            if other and other not in expected:
                found[_key(location)] = f"{expected} or {other}, found {given}"
        else:
            found.setdefault(_key(location), f"{_key(location)}: {_wording(error)}" if location else _wording(error))
    return list(found.values())


def _without_choices(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A place without the names that pydantic gives to the choices of a union, as `literal['a','b']`."""
    return tuple(part for part in location if not (isinstance(part, str) and ("[" in part or part in _CHOICES)))


def _key(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location) or "the whole"


_CHOICES = {"str", "int", "float", "bool"}
"""Names of plain choices of a union; no key of a manifest or recipe is called so."""

type _Say = Callable[[Mapping[str, Any]], str]

_LIMITS: dict[str, _Say] = {
    "greater_than": lambda c: f"must be greater than {c['gt']:g}",
    "greater_than_equal": lambda c: f"must be at least {c['ge']:g}",
    "less_than": lambda c: f"must be less than {c['lt']:g}",
    "less_than_equal": lambda c: f"must be at most {c['le']:g}",
    "multiple_of": lambda c: f"must be a multiple of {c['multiple_of']:g}",
    "too_short": lambda c: f"needs at least {c['min_length']} value{'s' if c['min_length'] > 1 else ''}",
    "too_long": lambda c: f"takes at most {c['max_length']} value{'s' if c['max_length'] > 1 else ''}",
    "literal_error": lambda c: f"must be {c['expected']}",
    "finite_number": lambda c: "must be a finite number",
    "int_from_float": lambda c: "must be a whole number",
    "none_required": lambda c: "must be null",
}
"""What a fault says, from its context, by the start of its type."""

_KINDS = (
    ("int_", "must be a whole number"),
    ("float_", "must be a number"),
    ("bool_", "must be true or false"),
    ("string_", "must be text"),
    ("tuple_", "must be a list"),
    ("list_", "must be a list"),
    ("dict_", "must be a mapping of keys to values"),
    ("mapping_", "must be a mapping of keys to values"),
    ("model_", "must be a mapping of keys to values"),
)
"""What a fault of the wrong kind says, by the start of its type."""


def _wording(error: ErrorDetails) -> str:
    """The fault without its key, e.g. `must be a number, found 'fast'`."""
    kind = error["type"]
    if kind == "missing":
        return "is missing"
    if kind in {"value_error", "assertion_error"}:
        return error["msg"].partition(", ")[2]
    say = _LIMITS.get(kind)
    expected = (
        say(error.get("ctx", {})) if say else next((text for start, text in _KINDS if kind.startswith(start)), "")
    )
    if not expected:
        expected = error["msg"].replace("Input should be", "must be")
    return f"{expected}, found {shortened(repr(error['input']))}"


def _known_keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Field names of the model at a nested location, for did-you-mean."""
    for part in path:
        found = model.model_fields.get(str(part))
        choices = get_args(found.annotation) or (found.annotation,) if found else ()
        nested = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)
