"""Benchmarks that a policy can be evaluated in: one module each, with an object `BENCHMARK`.

`fwtrain eval --env NAME` takes the name of a module here, of `environments/NAME.py` in FWDATA_PLUGINS or of an entry
point of `fwdata.environments` (see `fwdata.plugins`), or MODULE:OBJECT of anything importable: adding one is one file.
Everything else (worker processes, batches of observations, resuming, intervals, films) is shared.
"""

from __future__ import annotations

import importlib
import pkgutil

from fwdata.envs.benchmarks.contract import Benchmark
from fwdata.errors import UsageError, did_you_mean
from fwdata.plugins import ENVIRONMENTS


def benchmark_names() -> list[str]:
    """Names of the benchmarks that come with the project, of FWDATA_PLUGINS and of installed packages."""
    return sorted({*_built_in(), *ENVIRONMENTS.names()})


def _built_in() -> set[str]:
    return {m.name for m in pkgutil.iter_modules(__path__)} - {"contract", "process", "child"}


def load_benchmark(name: str) -> Benchmark:
    """A benchmark by its name or as MODULE:OBJECT. UsageError when there is none."""
    if ":" not in name and name not in benchmark_names():
        raise UsageError(f"--env {name!r} is unknown{did_you_mean(name, ['sample', *benchmark_names()])}")
    if ":" not in name and name not in _built_in():
        plugin: Benchmark = ENVIRONMENTS.load(name)
        return plugin
    module, _, attribute = name.partition(":") if ":" in name else (f"{__name__}.{name}", "", "BENCHMARK")
    try:
        found: Benchmark = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise UsageError(f"--env {name!r} is not MODULE:OBJECT of a benchmark: {error}") from None
    return found
