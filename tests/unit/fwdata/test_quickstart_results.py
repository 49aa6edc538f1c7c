"""The quickstart's figures: what a step says, and what a rerun keeps."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from fixtures import QUICKSTART_VALUES as VALUES

from fwdata.quickstart import run as run_module
from fwdata.quickstart.results import Results, Step, result_line, summary, summary_rows
from fwdata.quickstart.run import steps


def test_a_rerun_keeps_the_figures_of_steps_that_had_nothing_left_to_do(tmp_path: Path):
    first = Results(copy.deepcopy(VALUES), dict.fromkeys(VALUES, 10.0), 900, 100.0).with_earlier(tmp_path)
    values = copy.deepcopy(VALUES)
    values["train"] |= dict.fromkeys(("loss", "video_loss", "action_loss", "steps_per_s", "samples_per_s", "data_wait"))
    values["latents"] = {"first": 0, "latents_per_second": 0.0, "vae_share": 0.0}
    values["trained"]["rate"] = 0.9
    again = Results(values, dict.fromkeys(VALUES, 1.0), 500, 10.0).with_earlier(tmp_path)
    assert {**summary(again), "success_trained": 0.95, "seconds": 100.0} == summary(first)
    assert again.seconds["train"] == 10.0 and again.seconds["convert"] == 1.0 and again.total_seconds == 28.0
    assert dict(summary_rows(again))["closed-loop success, trained"] == "90% of 20"


def test_figures_of_steps_before_an_interruption_are_kept_and_none_is_made_up(tmp_path: Path):
    Results({"train": VALUES["train"]}, {"train": 9.0}, 1, 9.0).with_earlier(tmp_path)  # Ctrl-C before the report
    values = copy.deepcopy(VALUES)
    values["train"] |= {"loss": None, "video_loss": None, "action_loss": None, "steps_per_s": 0.0, "samples_per_s": 0.0}
    again = Results(values, dict.fromkeys(VALUES, 1.0), 1, 10.0)
    assert dict(summary_rows(again))["steps/s"] == "-" and dict(summary_rows(again))["data wait"] == "-"
    for done in range(1, len(VALUES) + 1):
        Results(dict(list(values.items())[:done]), dict.fromkeys(list(values)[:done], 1.0), 1, 1.0).with_earlier(
            tmp_path
        )
    assert dict(summary_rows(again.with_earlier(tmp_path)))["steps/s"] == "2.00"


def test_the_result_comes_first():
    names = [name for name, _ in summary_rows(Results(VALUES, dict.fromkeys(VALUES, 1.0), 1, 1.0))]
    assert names[:2] == ["closed-loop success, trained", "closed-loop success, untrained"]


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ("inspect", "2 episodes, 80 frames at 16.67 Hz, 1 camera, 3.0 kB"),
        ("predict", "32 actions of 14 dimensions"),
        ("train", "step 320 of 320, loss 0.5000"),
        ("stats", "of 1 training episode, 40 frames"),
        ("text", "2 of 2 prompts encoded"),
        ("latents", "80 first frames encoded"),
        ("trained", "95% of 20 episodes solved"),
    ],
)
def test_steps_say_what_came_of_them(step: str, line: str):
    assert result_line(step, VALUES[step]) == line


def test_every_step_that_shows_something_is_a_step():
    assert [step.name for step in steps(Path("x"))] == list(VALUES)


SAVER = """
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(0.6)  # longer than subprocess.run waits before it kills
    pathlib.Path("saved").write_text(str(number))
    sys.exit(130)
signal.signal(signal.SIGINT, save)
pathlib.Path("started").touch()
time.sleep(60)
"""


def test_ctrl_c_leaves_a_step_the_time_to_save_and_is_said_once(tmp_path: Path, monkeypatch, capfd):
    (tmp_path / "saver.py").write_text(SAVER)
    monkeypatch.chdir(tmp_path)

    def interrupt() -> None:
        while not Path("started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        run_module._run(Step("train", ("saver",), "train"), Results())
    assert ended.value.code == 130 and Path("saved").read_text() == str(int(signal.SIGINT))
    assert capfd.readouterr().err == "" and signal.getsignal(signal.SIGINT) is signal.default_int_handler
