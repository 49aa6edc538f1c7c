"""What runs the units of a job: this machine's processes, or a Ray cluster. One file each."""

from __future__ import annotations
