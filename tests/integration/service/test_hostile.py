"""Hostile requests through all routes: no 500, no refusal without a problem document, no leak."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.support.hostile import LIMITS, Tally, resources, send_all
from tests.support.service import TOKEN, Service

MAX_GROWTH_BYTES = 60_000_000


@pytest.mark.slow
def test_hostile_requests_cause_no_500_and_leave_nothing_behind(model_options: list[str], tmp_path: Path) -> None:
    with Service(*model_options, *LIMITS, log=tmp_path / "log.txt", tokens=TOKEN) as service:
        tally = Tally()
        asyncio.run(send_all(service.url, 1_500, 1, tally))
        memory, descriptors = resources(service)
        asyncio.run(send_all(service.url, 2_500, 2, tally))
        # Connections that the last requests left behind may take a moment to close.
        deadline = time.monotonic() + 10
        while (now := resources(service))[1] > descriptors and time.monotonic() < deadline:
            time.sleep(0.1)
        after, open_after = now
        assert tally.faults == []
        assert sum(tally.statuses.values()) > 3_000
        assert {200, 400, 401, 404, 405, 415, 422} <= set(tally.statuses)
        assert after - memory < MAX_GROWTH_BYTES
        assert open_after <= descriptors
        assert "request_failed" not in service.log
        assert "Traceback" not in service.log
        assert service.stop() == 0
