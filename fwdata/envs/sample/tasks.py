"""Tasks of the sample world: their goals and their instructions."""

from __future__ import annotations

from dataclasses import dataclass

from fwdata.errors import UsageError, did_you_mean

_SEEN = (
    "Press the {colour} button.",
    "Push the {colour} button.",
    "Push down the {colour} button",
    "Press down on the {colour} button.",
    "Move the hand to the {colour} button and press it.",
    "Reach for the {colour} button and press it",
    "Find the {colour} button and push it.",
    "Go to the {colour} button, then press it.",
    "Press the round {colour} button on the table.",
    "Close the gripper on the {colour} button.",
)
_UNSEEN = (
    "Hit the {colour} button.",
    "Please press the button that is {colour}.",
    "Activate the {colour} switch on the table.",
    "Tap the {colour} disk.",
    "The {colour} button needs to be pushed.",
)


@dataclass(frozen=True)
class Task:
    """A goal that only the instruction tells: every scene has a button of each colour."""

    name: str
    """Folder name of the task."""
    colour: str
    """Colour word of the button to press."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Ten training instructions, canonical first."""
        return tuple(text.format(colour=self.colour) for text in _SEEN)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Five evaluation instructions."""
        return tuple(text.format(colour=self.colour) for text in _UNSEEN)


TASKS = (Task("press_red_button", "red"), Task("press_blue_button", "blue"))
"""Every task, in the order that episode numbers cycle through."""


def find_task(name: str) -> Task:
    """The task of this name; UsageError naming the closest one when there is none."""
    for task in TASKS:
        if task.name == name:
            return task
    raise UsageError(f"no sample task {name!r}{did_you_mean(name, (task.name for task in TASKS))}")
