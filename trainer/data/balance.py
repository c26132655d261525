"""The balance of a teacher's answers: how often it gives each class to the rows themselves, and to all samples (pure).

Replacing words changes what a teacher says more often in one direction: of pairs that it calls paraphrases, many
samples stop being one, and few of the others become one. A student that learns from all samples learns that shift, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MOST_REPEATS = 10.0
"""The most that a rare answer is repeated: more would be the same few texts over and over."""
_SAMPLES, _SOURCES = "answers_to_samples", "answers_to_sources"

Floats = NDArray[np.float64]


def answer_counts(logits: NDArray[np.float32], is_source: NDArray[np.bool_]) -> dict[str, float]:
    """Statistics of a shard: how many samples got each class, the rows among them included, and how many rows did.

    logits: (samples, C); is_source: (samples,), True for labelled rows themselves.
    """
    counts: dict[str, float] = {}
    answers = logits.argmax(-1)
    for name, chosen in ((_SAMPLES, answers), (_SOURCES, answers[is_source])):
        found = np.bincount(chosen, minlength=logits.shape[1])
        counts |= {f"{name}_{number}": float(count) for number, count in enumerate(found)}
    return counts


def answer_shares(statistics: Sequence[Mapping[str, float]], num_classes: int) -> tuple[Floats, Floats] | None:
    """(C,) shares of each class among the answers to rows, and to all samples. None where a shard has no counts."""
    totals = []
    for name in (_SOURCES, _SAMPLES):
        keys = [f"{name}_{number}" for number in range(num_classes)]
        if any(key not in one for one in statistics for key in keys):
            return None
        totals.append(np.asarray([sum(one[key] for one in statistics) for key in keys]))
    sources, samples = (total / max(total.sum(), 1.0) for total in totals)
    return sources, samples


def balance_weights(sources: Floats, samples: Floats) -> Floats:
    """(C,) how often a sample with each answer is read, on average, for the answers to have the shares of `sources`."""
    return np.minimum(sources / np.maximum(samples, 1e-9), MOST_REPEATS)


def balanced_rows(logits: NDArray[np.float32], weights: Floats, generator: np.random.Generator) -> NDArray[np.int64]:
    """Rows in order, each as often as its answer's weight says: the whole part always, the rest by chance."""
    wanted = weights[logits.argmax(-1)]
    times = np.floor(wanted).astype(np.int64)
    times += generator.random(len(wanted)) < wanted - times
    return np.repeat(np.arange(len(wanted)), times)
