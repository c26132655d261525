"""Class balance of a teacher's predictions: how often it predicts each class on source rows and on all samples (pure).

Replacing words shifts a teacher's predictions in one direction: many samples of pairs that it calls paraphrases no
longer are, and few of the others become one. A student trained on all samples learns that shift, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MOST_REPEATS = 10.0
"""Maximum repeats of a rare class: more would be the same few texts over and over."""
_SAMPLES, _SOURCES = "answers_to_samples", "answers_to_sources"

Floats = NDArray[np.float64]


def answer_counts(logits: NDArray[np.float32], is_source: NDArray[np.bool_]) -> dict[str, float]:
    """Statistics of a shard: samples per predicted class, source rows included, and source rows per predicted class.

    logits: (samples, C); is_source: (samples,), True for labelled rows themselves.
    """
    counts: dict[str, float] = {}
    answers = logits.argmax(-1)
    for name, chosen in ((_SAMPLES, answers), (_SOURCES, answers[is_source])):
        found = np.bincount(chosen, minlength=logits.shape[1])
        counts |= {f"{name}_{number}": float(count) for number, count in enumerate(found)}
    return counts


def answer_shares(statistics: Sequence[Mapping[str, float]], num_classes: int) -> tuple[Floats, Floats] | None:
    """(C,) share of each class in the predictions on source rows, and on all samples. None if a shard has no counts."""
    totals = []
    for name in (_SOURCES, _SAMPLES):
        keys = [f"{name}_{number}" for number in range(num_classes)]
        if any(key not in one for one in statistics for key in keys):
            return None
        totals.append(np.asarray([sum(one[key] for one in statistics) for key in keys]))
    sources, samples = (total / max(total.sum(), 1.0) for total in totals)
    return sources, samples


def balance_weights(sources: Floats, samples: Floats) -> Floats:
    """(C,) average reads per sample of each predicted class that give the classes the shares of `sources`."""
    return np.minimum(sources / np.maximum(samples, 1e-9), MOST_REPEATS)


def balanced_rows(logits: NDArray[np.float32], weights: Floats, generator: np.random.Generator) -> NDArray[np.int64]:
    """Rows in order, each repeated by its predicted class's weight: the integer part always, the rest at random."""
    wanted = weights[logits.argmax(-1)]
    times = np.floor(wanted).astype(np.int64)
    times += generator.random(len(wanted)) < wanted - times
    return np.repeat(np.arange(len(wanted)), times)
