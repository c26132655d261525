"""Access tokens: their file, names and limits."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import ExpectedError, UsageError

TOKENS_VARIABLE = "AUGMENT_SERVICE_TOKENS"
MIN_TOKEN_CHARACTERS = 16
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LIMIT = re.compile(r"(max-requests|per-minute)=([1-9][0-9]{0,8})")


class TokenLimitError(ExpectedError):
    """A token has reached one of its limits (429); carries the seconds for Retry-After."""

    http_status = 429

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message, retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


@dataclass(slots=True)
class Usage:
    """Usage counts of a token. They survive a reload of the file."""

    num_running: int = 0
    allowance: float = math.inf
    counted_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """name: shown in logs and metrics. max_requests: concurrent requests; per_minute: request rate; None: unlimited."""

    secret: str = field(repr=False)
    name: str
    max_requests: int | None = None
    per_minute: int | None = None
    usage: Usage = field(default_factory=Usage, compare=False)

    def begin(self) -> None:
        """Count the start of a request. Raises TokenLimitError."""
        if self.max_requests is not None and self.usage.num_running >= self.max_requests:
            raise TokenLimitError(f"this token is limited to {self.max_requests} concurrent requests", 1.0)
        if self.per_minute is not None:
            self._spend(self.per_minute, time.monotonic())
        self.usage.num_running += 1

    def end(self) -> None:
        """Count the end of a request."""
        self.usage.num_running -= 1

    def _spend(self, per_minute: int, now: float) -> None:
        # A token bucket: a minute's allowance may be used at once, and then refills by one every 60/N seconds.
        earned = (now - self.usage.counted_at) * per_minute / 60
        self.usage.allowance = min(self.usage.allowance + earned, float(per_minute))
        self.usage.counted_at = now
        if self.usage.allowance < 1:
            wait = (1 - self.usage.allowance) * 60 / per_minute
            raise TokenLimitError(f"this token is limited to {per_minute} requests per minute", wait)
        self.usage.allowance -= 1


def read_tokens(token_file: str | None) -> list[Token]:
    """Tokens from the file and from AUGMENT_SERVICE_TOKENS. Raises UsageError, whose message never shows a token."""
    parts = [part.strip() for part in os.environ.get(TOKENS_VARIABLE, "").split(",")]
    tokens = [_token(part, f"{TOKENS_VARIABLE}: token {n}", n) for n, part in enumerate(filter(None, parts), start=1)]
    if token_file is not None:
        tokens += _from_file(token_file, len(tokens))
    for name, count in Counter(one.name for one in tokens).items():
        if count > 1:
            raise UsageError(f"two tokens are named {name}; give each its own name")
    return tokens


def _from_file(token_file: str, before: int) -> list[Token]:
    try:
        # Editors on Windows may write a byte order mark, which must not become part of the first token.
        lines = Path(token_file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a UTF-8 text file"
        raise UsageError(f"--token-file {token_file}: {reason}") from error
    found: list[Token] = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            place = f"--token-file {token_file} line {number}"
            found.append(_token(line.strip(), place, before + len(found) + 1))
    if not found:
        raise UsageError(f"--token-file {token_file} contains no tokens; write one per line")
    return found


def _token(line: str, place: str, number: int) -> Token:
    """Parse `TOKEN` or `NAME: TOKEN`, each optionally followed by limits."""
    name, separator, rest = line.partition(": ")
    words = (rest if separator else line).split()
    if separator and not _NAME.fullmatch(name):
        raise UsageError(f"{place}: a token name may have up to 64 letters, digits, `.`, `_` and `-`")
    secret, *limits = words or [""]
    if len(secret) < MIN_TOKEN_CHARACTERS or not secret.isascii() or not secret.isprintable():
        raise UsageError(
            f"{place}: a token must be {MIN_TOKEN_CHARACTERS} or more ASCII characters without spaces, as TOKEN or "
            "NAME: TOKEN; generate one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    values: dict[str, int] = {}
    for one in limits:
        found = _LIMIT.fullmatch(one)
        if found is None:
            raise UsageError(f"{place}: only max-requests=N and per-minute=N may follow the token")
        values[found[1].replace("-", "_")] = int(found[2])
    return Token(
        secret=secret,
        name=name if separator else f"token-{number}",
        max_requests=values.get("max_requests"),
        per_minute=values.get("per_minute"),
    )
