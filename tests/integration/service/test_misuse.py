"""Clients that misuse the service, in crowds: the others are answered, and nothing of the crowd stays behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.abuse import ATTACKS, outcome_of
from tests.support.service import Service

CONNECTIONS, SECONDS = 60, 4.0
BUDGET, CACHE = 100_000_000, 20_000_000
ROOMY_BUDGET, ROOMY_CACHE = 600_000_000, 250_000_000


@pytest.fixture(scope="module")
def crowded(model_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    yield from running_service(model_options, tmp_path_factory, BUDGET, CACHE)


@pytest.fixture(scope="module")
def roomy(model_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with room for several of the largest answers."""
    yield from running_service(model_options, tmp_path_factory, ROOMY_BUDGET, ROOMY_CACHE)


def running_service(
    model_options: list[str], tmp_path_factory: pytest.TempPathFactory, budget: int, cache: int
) -> Iterator[Service]:
    options = ["--memory-budget", str(budget), "--cache-bytes", str(cache), "--max-connections", "100"]
    options += ["--body-seconds", "2", "--max-answer-bytes", "64000000"]
    with Service(*model_options, *options, log=tmp_path_factory.mktemp("crowded") / "log.txt") as running:
        yield running
        assert running.process.poll() is None, running.log
        assert "Traceback" not in running.log
        assert running.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [one for one in ATTACKS if one != "admitted answers"])
def test_a_crowd_that_misuses_the_service_takes_bounded_memory_and_leaves_nothing(crowded: Service, kind: str) -> None:
    """Latencies are measured by the script: on a machine with other work they would prove nothing here."""
    outcome = outcome_of(crowded, kind, CONNECTIONS, SECONDS, BUDGET + CACHE)
    assert outcome.tally.faults == []
    assert outcome.during.seconds, "no small request was answered"
    assert outcome.peak < outcome.allowed
    assert outcome.descriptors_left <= 0
    assert 500 not in outcome.tally.statuses
    seen = set(outcome.tally.statuses)
    assert seen <= {"stalled bodies": {408}, "unread streams": {200, 503}, "long headers": {431}}.get(
        kind, {200, 422, 503, 504}
    )


@pytest.mark.slow
def test_the_largest_answers_that_are_admitted_at_once_take_no_more_than_the_budget(roomy: Service) -> None:
    """Unless answers are computed, held and sent at the same time, the check of the memory would prove nothing."""
    outcome = outcome_of(roomy, "admitted answers", 24, 40.0, ROOMY_BUDGET + ROOMY_CACHE)
    assert outcome.tally.faults == []
    # Large answers are admitted and refused at the same time, while nearly all the small requests are answered.
    assert set(outcome.tally.statuses) == {200, 503}
    small = len(outcome.during.seconds)
    assert small >= 0.9 * (small + outcome.during.refused)
    assert outcome.reserved > ROOMY_BUDGET / 3
    assert outcome.peak < outcome.allowed
    assert outcome.descriptors_left <= 0
