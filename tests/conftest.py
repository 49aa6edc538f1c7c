"""Shared test set-up: one thread per process, so that timings of parallel runs stay sane and results stay equal."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
