"""Rows -> samples as steps: the only place that chooses between the two conditionings."""

from __future__ import annotations

from collections.abc import Sequence

from augment_service.engine.proposer import Proposer, Steps
from augment_service.engine.sequential import sequential_steps
from shared.candidates import RowCandidates, Samples
from shared.inputs.rows import SourceRow
from shared.sampling import draw_samples


def samples_steps(proposer: Proposer, rows: Sequence[SourceRow]) -> Steps[tuple[Sequence[RowCandidates], Samples]]:
    """Samples of each row, and the texts in which they replace words."""
    if proposer.params.conditioning == "sequential":
        return (yield from sequential_steps(proposer, rows))
    n_a = proposer.n_a_of(rows)
    found = yield from proposer.candidates_steps(rows, n_a > 0)
    return found, draw_samples(found, proposer.params, n_a)
