"""Extensions by name, one mechanism for every kind: of the folder FWDATA_PLUGINS, and of installed packages.

A kind has a folder below FWDATA_PLUGINS, a group of entry points, and one object that a module offers:

    kind              file in FWDATA_PLUGINS      entry points              the module's object
    converter         NAME.py or NAME/            fwdata.converters         class Converter (fwdata.api)
    stitch layout     layouts/NAME.py             fwdata.layouts            LAYOUT (fwdata.images.layouts)
    text encoder      text_encoders/NAME.py       fwdata.text_encoders      load (fwdata.encode.text.encoders)
    VAE               vaes/NAME.py                fwdata.vaes               load (fwdata.encode.vae.base)
    environment       environments/NAME.py        fwdata.environments       BENCHMARK (fwdata.envs.benchmarks.contract)
    variant           variants/NAME.py            fwtrain.variants          VARIANT (fwtrain.variants.Variant)
    tracker           trackers/NAME.py            fwtrain.trackers          open_sink (fwtrain.train.trackers)

An entry point is `NAME = "package.module"`, or `NAME = "package.module:OBJECT"` for the object itself. NAME is what
options, manifests and recipes take. A file of FWDATA_PLUGINS comes before an installed package of the same name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fwdata.errors import FwdataError, UsageError, one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def plugin_dir() -> Path | None:
    """The user's own folder of extensions and manifests, from the environment variable FWDATA_PLUGINS."""
    value = os.environ.get("FWDATA_PLUGINS")
    return Path(value) if value else None


@dataclass(frozen=True)
class Kind:
    """One kind of extension."""

    what: str
    """What messages call it."""
    group: str
    """Group of its entry points."""
    folder: str
    """Its folder below FWDATA_PLUGINS; empty for that folder itself."""
    attribute: str | None
    """Name of the object that a module offers; None: the module itself."""

    def files(self) -> dict[str, Path]:
        """Files of FWDATA_PLUGINS by name: NAME.py, or the __init__.py of a folder NAME."""
        folder = plugin_dir()
        if folder is None or not (folder / self.folder).is_dir():
            return {}
        packages = {p.parent.name: p for p in (folder / self.folder).glob("*/__init__.py")}
        found = {**packages, **{p.stem: p for p in (folder / self.folder).glob("*.py")}}
        return {name: path for name, path in found.items() if not name.startswith(("_", "test_", "conftest"))}

    def installed(self) -> dict[str, EntryPoint]:
        """Entry points of installed packages by name. Cost: 20 ms at first, of a look at every installed package."""
        from importlib.metadata import entry_points

        places = tuple((place, _modified(place)) for place in sys.path)
        return {found.name: found for found in _entry_points(entry_points, self.group, places)}

    def names(self) -> list[str]:
        """Names of all that is not built in, sorted."""
        return sorted({*self.files(), *self.installed()})

    def file_object(self, name: str) -> Any:
        """The object of a file of FWDATA_PLUGINS. UsageError where the file does not offer it."""
        path = self.files()[name]
        return self._of(load_file(f"fwdata_plugin_{self.folder or 'converters'}_{name}", path), str(path))

    def installed_object(self, name: str) -> Any:
        """The object of an entry point. UsageError where it cannot be loaded or does not offer one."""
        entry = self.installed()[name]
        where = f"entry point {name} = {entry.value!r} of group {self.group}"
        try:
            found = entry.load()
        except FwdataError:
            raise
        except Exception as error:
            raise UsageError(f"{where}: {_fault(error)}; fix or uninstall its package") from error
        if isinstance(found, ModuleType):
            return self._of(found, where)
        if self.attribute is None:
            raise UsageError(f"{where} must name a module, found {type(found).__name__}")
        return found

    def load(self, name: str) -> Any:
        """The object of a name: of FWDATA_PLUGINS, else installed; None where there is none. UsageError as above."""
        if name in self.files():
            return self.file_object(name)
        return self.installed_object(name) if name in self.installed() else None

    def _of(self, module: ModuleType, where: str) -> Any:
        if self.attribute is None:
            return module
        if not hasattr(module, self.attribute):
            raise UsageError(f"{where} has no {self.attribute}, which a {self.what} needs; see fwdata/plugins.py")
        return getattr(module, self.attribute)


@cache
def _entry_points(
    look: Callable[..., Iterable[EntryPoint]], group: str, places: tuple[tuple[str, int], ...]
) -> tuple[EntryPoint, ...]:
    """Entry points of a group. places: folders of sys.path and when a package was added to or removed from them."""
    return tuple(look(group=group))


def _modified(place: str) -> int:
    try:
        return os.stat(place or os.curdir).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def load_file(name: str, path: Path) -> ModuleType:
    """A module from a file, executed once in a process for each version of the file.

    UsageError with the line where executing it fails.
    """
    return _executed(name, path, path.stat().st_mtime_ns)


@cache
def _executed(name: str, path: Path, mtime_ns: int) -> ModuleType:
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look it up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        if isinstance(error, FwdataError):
            raise
        raise UsageError(f"{path}{_line(error, path)}: {_fault(error)}; fix the file or remove it") from error
    return module


def _fault(error: Exception) -> str:
    missing = isinstance(error, ModuleNotFoundError)
    return one_line(str(error) if missing else f"{type(error).__name__}: {error}")


def _line(error: Exception, path: Path) -> str:
    """For messages: the last line of the file that was reached, as `, line 3`; empty where it was not."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    reached = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {reached[-1]}" if reached else ""


CONVERTERS = Kind("converter", "fwdata.converters", "", None)
LAYOUTS = Kind("stitch layout", "fwdata.layouts", "layouts", "LAYOUT")
TEXT_ENCODERS = Kind("text encoder", "fwdata.text_encoders", "text_encoders", "load")
VAES = Kind("VAE", "fwdata.vaes", "vaes", "load")
ENVIRONMENTS = Kind("environment", "fwdata.environments", "environments", "BENCHMARK")
VARIANTS = Kind("variant", "fwtrain.variants", "variants", "VARIANT")
TRACKERS = Kind("tracker", "fwtrain.trackers", "trackers", "open_sink")
