"""Which rows train, which choose and which test: by a hash of the text, so that a longer file keeps its split (pure).

Rows whose texts have the same words are on the same side. A text is in the test part if its hash is below a threshold,
whatever the other rows are; each class gives about its share, and at least one text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data.split import MAX_VALIDATION_ROWS

TRAIN, DEV, TEST = 0, 1, 2

Classes = NDArray[np.int64] | NDArray[np.bool_]


def assign_parts(hashes: NDArray[np.uint64], classes: Classes, dev_share: float, test_share: float) -> NDArray[np.int8]:
    """(rows,) TRAIN, DEV or TEST. hashes: (rows,) of the words of each row; classes: (rows,), one for
    regression; or (rows, C) bool, which of the classes a row has.

    A share of 0 makes no such part.
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
    """The same with at most `maximum` rows to choose on, those of the lowest hashes; the others train."""
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
    """A class without a row in `part` gives the text whose hash comes next, if it has another one left to train on."""
    for own in classes.T if classes.ndim == 2 else (classes == one for one in np.unique(classes)):
        if (parts[own] == part).any():
            continue
        candidates = np.unique(hashes[own & (parts == TRAIN) & (hashes.astype(np.float64) / 2.0**64 >= begin)])
        if len(candidates) > 1:
            parts[hashes == candidates[0]] = part
