"""The progress line on a terminal and in a log file."""

from __future__ import annotations

import io
import logging
import os
import pty

import pytest

from shared.cli import progress
from shared.cli.progress import Progress, format_seconds


def test_a_terminal_gets_one_line_that_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TERMINAL_PERIOD_SECONDS", 0.0)
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as terminal:
        bar = Progress("augment", 200, "rows", start=50, stream=terminal)
        for done in (50, 100, 200):
            bar.update(done, shards_left=3)
        bar.close()
        written = ""
        while "\n" not in written:  # the kernel may deliver the writes in several parts
            written += os.read(reader, 10_000).decode()
    os.close(reader)
    assert written.count("\n") == 1
    first, second, last = written.split("\r\x1b[2K")[1:]
    assert "?" in first
    assert "50%  100/200 rows" in second
    assert f"[{'#' * 24}] 100%  200/200 rows" in last
    assert "shards_left 3" in last
    assert "rows/s" in last


def test_a_log_file_gets_plain_lines_every_so_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.StringIO()
    with caplog.at_level(logging.INFO):
        bar = Progress("augment", 200, "rows", stream=stream)
        bar.update(100)
        assert caplog.messages == []
        monkeypatch.setattr(progress, "LOG_PERIOD_SECONDS", 0.0)
        bar.update(100)
        bar.close()
    (line,) = caplog.messages
    assert line.startswith("augment 50% 100/200 rows")
    assert stream.getvalue() == ""
    assert not set("\r\x1b") & set(line)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (75.2, "1m15s"), (3600 * 5 + 65, "5h01m")])
def test_times_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
