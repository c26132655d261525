"""Train, validation and test split by a hash of the text, so that a file that grows keeps its split (pure).

Rows whose texts have the same words go to the same part. A text is in the test part if its hash is below a threshold,
whatever the other rows are; each class contributes about its share, and at least one text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data.split import MAX_VALIDATION_ROWS

TRAIN, DEV, TEST = 0, 1, 2

Classes = NDArray[np.int64] | NDArray[np.bool_]


def assign_parts(hashes: NDArray[np.uint64], classes: Classes, dev_share: float, test_share: float) -> NDArray[np.int8]:
    """(rows,) TRAIN, DEV or TEST. hashes: (rows,) of each row's words; classes: (rows,), all equal for
    regression, or (rows, C) bool for several labels per row.

    A share of 0 leaves that part empty.
    """
    place = hashes.astype(np.float64) / 2.0**64
    parts = np.full(len(hashes), TRAIN, np.int8)
    parts[place < test_share + dev_share] = DEV
    parts[place < test_share] = TEST
    for part, share, begin in ((TEST, test_share, 0.0), (DEV, dev_share, test_share)):
        if share:
            _give_each_class_one(parts, part, begin, hashes, classes)
    return parts


def limited(
    parts: NDArray[np.int8], hashes: NDArray[np.uint64], maximum: int = MAX_VALIDATION_ROWS
) -> NDArray[np.int8]:
    """The same with at most `maximum` validation rows, those with the lowest hashes; the rest go to training."""
    dev = np.flatnonzero(parts == DEV)
    if len(dev) <= maximum:
        return parts
    result = parts.copy()
    last = np.sort(hashes[dev])[maximum - 1]
    result[dev[hashes[dev] > last]] = TRAIN
    return result


def _give_each_class_one(
    parts: NDArray[np.int8], part: int, begin: float, hashes: NDArray[np.uint64], classes: Classes
) -> None:
    """Give `part` one text, the next by hash, of each class it lacks, if the class keeps another one for training."""
    for own in classes.T if classes.ndim == 2 else (classes == one for one in np.unique(classes)):
        if (parts[own] == part).any():
            continue
        candidates = np.unique(hashes[own & (parts == TRAIN) & (hashes.astype(np.float64) / 2.0**64 >= begin)])
        if len(candidates) > 1:
            parts[hashes == candidates[0]] = part
