"""Converters by name: the built-in ones, those that installed packages offer, and those of FWDATA_PLUGINS."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from fwdata.api import ChooseManifest, Converter, Fetch, StoredConventions
from fwdata.errors import UsageError, did_you_mean
from fwdata.manifest import Manifest, manifest_names
from fwdata.plugins import CONVERTERS
from fwdata.store.records import FIRST_VERSION

NOT_CONVERTERS = {"shared"}
"""Packages below `converters/` that read no format of their own."""


def converter_names() -> list[str]:
    """Names that `fwdata convert` takes: built-in converters, installed ones and those of FWDATA_PLUGINS."""
    return sorted({*built_in(), *CONVERTERS.names()})


def has_converter(name: str) -> bool:
    """Whether there is a converter of that name; installed packages are only searched where it is not built in."""
    return name in built_in() or name in CONVERTERS.files() or name in CONVERTERS.installed()


def built_in() -> set[str]:
    """Names of the converters that come with the package."""
    import converters

    names = {m.name for m in pkgutil.iter_modules(converters.__path__)} - NOT_CONVERTERS
    return {name for name in names if not name.startswith("_")}


def load_converter(manifest: Manifest) -> Converter:
    """The converter a manifest names. UsageError with the closest match when there is none."""
    module = converter_module(manifest.converter)
    if not hasattr(module, "Converter"):
        raise UsageError(f"{module.__file__} has no class Converter; see fwdata.api for what a converter must offer")
    converter: Converter = module.Converter(manifest)
    return converter


def converter_version(source: str) -> int:
    """The `version` of a converter's class; FIRST_VERSION where it states none. UsageError for one below 1."""
    version = getattr(getattr(converter_module(source), "Converter", None), "version", FIRST_VERSION)
    if type(version) is not int or version < 1:
        raise UsageError(f"converter {source!r}: version must be a whole number of at least 1, found {version!r}")
    return version


def options_model(source: str) -> type[BaseModel] | None:
    """The `Options` of a converter's module: the pydantic model of its manifest options, or None."""
    found = getattr(converter_module(source), "Options", None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def sources_taking(option: str) -> list[str]:
    """The built-in sources that have an option of this name, sorted."""
    models = {source: options_model(source) for source in sorted(built_in())}
    return [source for source, model in models.items() if model is not None and option in model.model_fields]


def is_option(name: str) -> bool:
    """Whether a built-in source has an option of this name. Those imported are asked first, the others up to one that
    has it; a source whose extra is not installed is passed over."""
    for source in sorted(built_in(), key=lambda source: (f"converters.{source}" not in sys.modules, source)):
        try:
            model = options_model(source)
        except ImportError:
            continue
        if model is not None and name in model.model_fields:
            return True
    return False


def filled_options(source: str, options: Mapping[str, Any]) -> dict[str, object]:
    """A manifest's options with the defaults of the converter's `Options` for those it does not state.

    As they are where the converter declares none, or no longer takes one of them.
    """
    model = options_model(source)
    if model is None:
        return dict(options)
    try:
        return model.model_validate({**model().model_dump(), **options}).model_dump(mode="json")
    except ValidationError:
        return dict(options)


def converter_module(name: str) -> ModuleType:
    """The module or package of a converter: of FWDATA_PLUGINS, else built in, else installed.

    UsageError with the closest name when there is none, or when an installed one cannot be imported.
    """
    module: ModuleType | None
    if name not in CONVERTERS.files() and name in built_in():
        module = importlib.import_module(f"converters.{name}")
    else:
        module = CONVERTERS.load(name)
    if module is None:
        raise UsageError(f"no converter {name!r}{did_you_mean(name, converter_names())}")
    return module


def default_manifest(name: str) -> str:
    """The manifest of a converter that comes with one of its own, NAME.yaml beside its module; else its name."""
    if name in manifest_names():
        return name
    file = converter_module(name).__file__
    beside = Path(file).parent / f"{name}.yaml" if file else None
    return str(beside) if beside is not None and beside.is_file() else name


def located(source: str, raw: Path, manifest: str | None, options: Mapping[str, Any]) -> Path:
    """`raw`, or the folder that its converter fetches it to (function `fetch`), where there is no such path.

    raw may name a dataset on the hub. UsageError when it cannot be fetched.
    """
    if raw.exists():
        return raw
    fetch: Fetch | None = getattr(converter_module(source), "fetch", None)
    return raw if fetch is None else fetch(raw.as_posix(), manifest, options)


def chooser(source: str) -> ChooseManifest | None:
    """The function `choose_manifest` of a converter's module, or None."""
    return getattr(converter_module(source), "choose_manifest", None)


def stored_conventions(source: str) -> StoredConventions | None:
    """The function `stored_conventions` of a converter's module, or None."""
    return getattr(converter_module(source), "stored_conventions", None)
