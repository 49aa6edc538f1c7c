"""Errors of training, besides those of `fwdata.errors`.

FwdataError               1
├── TrainingDiverged      1   a loss or gradient is not finite; the last good checkpoint is kept
├── Interrupted         130   stopped by a signal after saving; the same command continues
└── UsageError            2
    ├── RunMismatch       2   a run folder made by another recipe, store or cache
    └── CheckpointError   2   no complete checkpoint, or one of another model
"""

from __future__ import annotations

from fwdata.errors import EXIT_INTERRUPTED, FwdataError, UsageError


class TrainingDiverged(FwdataError):
    """A loss or a gradient became NaN or infinite."""


class Interrupted(FwdataError):
    """Stopped by SIGINT or SIGTERM after the state was saved."""

    exit_code = EXIT_INTERRUPTED


class RunMismatch(UsageError):
    """A run folder that was made from something else than what is asked for now."""


class CheckpointError(UsageError):
    """A checkpoint that is absent, incomplete, damaged, or of another model."""
