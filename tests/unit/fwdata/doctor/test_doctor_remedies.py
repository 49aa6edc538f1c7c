"""Commands that fix what detectors find, by how many episodes contradict."""

from __future__ import annotations

from dataclasses import replace

from fwdata.doctor.remedies import Patient, remedy
from fwdata.evidence.records import DatasetVerdict


def test_two_kinds_of_episodes_are_converted_apart() -> None:
    """No option suits both; where those that contradict are more than half, they are converted alone with it."""
    patient, option = Patient("raw", "libero", False), "--set gripper=open"
    found = DatasetVerdict(
        "gripper_polarity", "mixed", episodes_for=2, against=3, action="stop", episodes=("a", "b 1", "c")
    )
    alone = "fwdata convert libero raw --out NEW.zarr --only a --only 'b 1' --only c"
    assert remedy(patient, found, 5, option) == f"{alone} {option}  # the others without this, to another store"
    assert remedy(patient, found, 5) == f"{alone}  # the others without this, to another store"
    assert remedy(patient, found, 6, option).endswith("--exclude a --exclude 'b 1' --exclude c")
    many = replace(found, against=40, episodes=tuple(str(n) for n in range(12)))
    assert remedy(patient, many, 60, option).endswith("  # all 40 of them; the others without this, to another store")
    whole = replace(found, verdict="contradicted", episodes_for=0)
    assert remedy(patient, whole, 3, option) == f"fwdata convert libero raw --out NEW.zarr {option}"
