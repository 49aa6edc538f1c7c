"""Both programs run in this process as fixtures: `run` for fwdata, `call` for fwtrain."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from fake_store import FakeStore


@dataclass(frozen=True)
class Ran:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refused(self, code: int, *words: str) -> None:
        """The command ended with this code and one sentence with these words."""
        lines = [line for line in self.err.splitlines() if line]
        assert self.code == code, self.err
        assert lines[-1].startswith("error: ") and all(word in lines[-1] for word in words), self.err
        assert "Traceback" not in self.err and self.out == ""
        assert sum(line.startswith("error: ") for line in lines) == 1


class Command:
    """Runs `fwdata ARGUMENTS` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Ran:
        from fwdata import cli

        self._monkeypatch.setattr("sys.argv", ["fwdata", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = self._capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, captured.out, captured.err)


@pytest.fixture(autouse=True, scope="session")
def commands_made_once() -> Iterator[None]:
    """A command line is read from the signatures of its functions once, which takes 60 ms for all of fwdata's."""
    import typer.main

    make, made = typer.main.get_command, WeakKeyDictionary[typer.Typer, Any]()

    def once(app: typer.Typer) -> Any:
        if app not in made:
            made[app] = make(app)
        return made[app]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", once)
        yield


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`fwdata` with the toy converter, and a VAE that needs no weights."""
    from fixtures import PLUGINS, FakeVae

    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    monkeypatch.setattr("fwdata.encode.latents.load_vae", lambda spec, device, dtype: FakeVae(spec))
    return Command(monkeypatch, capsys)


@pytest.fixture
def memory_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStore]:
    """A store in memory, whatever path fwtrain opens."""
    import torch
    from fake_store import FakeStore

    before = torch.get_num_threads()
    found = FakeStore()
    monkeypatch.setattr("fwdata.open", lambda location: found)
    yield found
    torch.set_num_threads(before)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run fwtrain with arguments: (exit code, stdout, stderr)."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        from fwtrain import cli

        monkeypatch.setattr(sys, "argv", ["fwtrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run_command
