"""Logging, set up once per process: lines of the form `event key=value`, or one JSON object per line.

Call sites write `logger.info("shard_committed", extra={"fields": {"shard": 3, "rows": 512}})`. Text of the
corpus is logged at debug level only.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={_plain(value)}" for key, value in _fields_of(record).items())
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{stamp} {record.levelname.lower():7} {record.getMessage()}" + (f" {fields}" if fields else "")
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name}
        entry |= {"event": record.getMessage()} | _fields_of(record)
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


_bound: dict[str, Any] = {}


def bind_log_fields(**fields: Any) -> None:
    """Add fields, such as `job`, to every later log line of this process."""
    _bound.update(fields)


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {}) | _bound


def _plain(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text else text


def configure_logs(log_format: str = "text", level: str = "info") -> None:
    """Send log lines of our packages, and warnings and above of libraries, to stderr. May be called again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("augment_service", "trainer", "shared"):
        logging.getLogger(name).setLevel(level.upper())
