"""How a text's inputs are split into calls of the masked-LM deployment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from augment_service.engine.batches import ModelInput
from augment_service.service.deployments import split_inputs


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 60))
def test_the_parts_together_are_the_inputs_in_order(lengths: list[int], max_tokens: int) -> None:
    inputs = [ModelInput((number, *range(length - 1)), (0,), length) for number, length in enumerate(lengths)]
    parts = split_inputs(inputs, max_tokens)
    assert [one for part in parts for one in part] == inputs
    assert all(len(part) == 1 or sum(map(len, part)) <= max_tokens for part in parts)
    assert all(len(part) for part in parts)
