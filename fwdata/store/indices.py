"""Numbers that callers ask for rows by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def whole_numbers(indices: ArrayLike, what: str) -> NDArray[np.int64]:
    """int64 [n]: the numbers asked for. IndexError for a mask and for fractions, which would be taken for other rows.

    what: the rows, for the message.
    """
    found: NDArray[Any] = np.asarray(indices)
    if found.size and found.dtype.kind not in "iu":
        hint = "; give np.flatnonzero(mask) for a mask" if found.dtype.kind == "b" else ""
        raise IndexError(f"{what} are asked for by whole numbers, found {found.dtype}{hint}")
    return found.astype(np.int64, copy=False).reshape(-1)
