"""The hand-written gradients of `trainer mlm` equal those of autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.mlm import functions
from trainer.mlm.functions import low_rank_linear, tied_cross_entropy

Parts = dict[str, Tensor]


def plain_linear(x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return functional.linear(x, weight + 0.5 * b @ a, bias)


def plain_cross_entropy(states: Tensor, table: Tensor, bias: Tensor, a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(states, table + a @ b, bias).float(), labels)


def half_low_rank_linear(x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return low_rank_linear(x, weight, bias, a, b, 0.5)


def values_and_gradients(function: Callable[..., Tensor], parts: Parts, trained: str, autocast: bool) -> list[Tensor]:
    """The output, and the gradients of `trained` for a loss that weights every output differently."""
    own = {name: part.clone().requires_grad_(name in trained.split()) for name, part in parts.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = function(*own.values())
    weights = torch.linspace(-1.0, 2.0, result.numel()).reshape(result.shape)
    (result.float() * (weights if result.ndim else 3.0)).sum().backward()  # type: ignore[no-untyped-call]
    return [result.detach().float(), *(own[name].grad for name in trained.split())]  # type: ignore[list-item]


def linear_parts(rows: tuple[int, ...], inner: int, outer: int, rank: int) -> Parts:
    draw = torch.Generator().manual_seed(sum(rows) + inner)
    shapes = {"x": (*rows, inner), "weight": (outer, inner), "bias": (outer,), "a": (rank, inner), "b": (outer, rank)}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def head_parts(rows: int, hidden: int, pieces: int, rank: int) -> Parts:
    draw = torch.Generator().manual_seed(rows + pieces)
    shapes = {"states": (rows, hidden), "table": (pieces, hidden), "bias": (pieces,)}
    shapes |= {"a": (pieces, rank), "b": (rank, hidden)}
    parts = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return parts | {"labels": torch.randint(0, pieces, (rows,), generator=draw)}


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_an_adapted_layer(batch: int, length: int, inner: int, outer: int, rank: int) -> None:
    parts = linear_parts((batch, length), inner, outer, rank)
    ours = values_and_gradients(half_low_rank_linear, parts, "x a b", False)
    plain = values_and_gradients(plain_linear, parts, "x a b", False)
    for our, their in zip(ours, plain, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)


@given(
    st.integers(1, 2 * functions.ROWS_AT_ONCE + 1),
    st.integers(1, 9),
    st.integers(2, 40),
    st.integers(1, 4),
    st.integers(0, 70),
)
def test_the_loss_over_tied_embeddings(rows: int, hidden: int, pieces: int, rank: int, fillers: int) -> None:
    parts = head_parts(rows + fillers, hidden, pieces, rank)
    parts["labels"][rows:] = -100
    ours = values_and_gradients(tied_cross_entropy, parts, "states bias a b", False)
    plain = values_and_gradients(plain_cross_entropy, parts, "states bias a b", False)
    for our, their in zip(ours, plain, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)


def test_the_loss_over_an_unchanged_table() -> None:
    parts = head_parts(50, 8, 30, 1)
    del parts["a"], parts["b"]
    ours = values_and_gradients(
        lambda states, table, bias, labels: tied_cross_entropy(states, table, bias, None, None, labels),
        parts,
        "states bias",
        False,
    )
    plain = values_and_gradients(
        lambda states, table, bias, labels: functional.cross_entropy(functional.linear(states, table, bias), labels),
        parts,
        "states bias",
        False,
    )
    for our, their in zip(ours, plain, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "plain", "parts", "trained"),
    [
        (half_low_rank_linear, plain_linear, linear_parts((8, 16), 64, 96, 8), "x a b"),
        (tied_cross_entropy, plain_cross_entropy, head_parts(100, 64, 500, 8), "states bias a b"),
    ],
)
def test_in_bf16_they_are_as_exact_as_autograd(
    ours: Callable[..., Tensor], plain: Callable[..., Tensor], parts: Parts, trained: str
) -> None:
    exact = values_and_gradients(plain, parts, trained, False)
    errors = [
        [float((one - true).norm() / true.norm()) for one, true in zip(found, exact, strict=True)]
        for found in (
            values_and_gradients(ours, parts, trained, True),
            values_and_gradients(plain, parts, trained, True),
        )
    ]
    for our, their in zip(*errors, strict=True):
        assert our < 1.5 * their + 2e-3
        assert our < 0.03
