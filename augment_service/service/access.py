"""Access control: bearer tokens, compared in constant time, and the rule that only loopback may do without them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from shared.errors import UsageError

TOKENS_VARIABLE = "AUGMENT_SERVICE_TOKENS"
MIN_TOKEN_CHARACTERS = 16


class Access:
    """A set of access tokens; an empty set lets every request through."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = [_digest(token.encode()) for token in tokens]

    @property
    def needs_token(self) -> bool:
        """Whether requests must carry a token."""
        return bool(self._digests)

    def allows(self, authorization: bytes | None) -> bool:
        """Whether an Authorization header holds one of the tokens. The time taken does not depend on the tokens."""
        if not self._digests:
            return True
        scheme, _, given = (authorization or b"").partition(b" ")
        digest = _digest(given.strip())
        # All tokens are compared, so that timing reveals neither which one matched nor how much of it did.
        matches = [hmac.compare_digest(digest, one) for one in self._digests]
        return any(matches) and scheme.lower() == b"bearer"


def read_tokens(token_file: str | None) -> list[str]:
    """Tokens from the file and from AUGMENT_SERVICE_TOKENS. Raises UsageError, whose message never shows a token."""
    tokens = [part.strip() for part in os.environ.get(TOKENS_VARIABLE, "").split(",")]
    if token_file is not None:
        try:
            lines = Path(token_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a UTF-8 text file"
            raise UsageError(f"--token-file {token_file}: {reason}") from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UsageError(f"--token-file {token_file} contains no token; write one per line")
        tokens += found
    tokens = [token for token in tokens if token]
    for number, token in enumerate(tokens, start=1):
        if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or any(letter.isspace() for letter in token):
            raise UsageError(
                f"token {number} must be {MIN_TOKEN_CHARACTERS} or more ASCII characters without spaces; generate one: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
    return tokens


def check_binding(host: str, has_tokens: bool, allow_without_token: bool) -> None:
    """Raises UsageError when other machines could send requests without a token."""
    if not has_tokens and not allow_without_token and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines: set {TOKENS_VARIABLE} or --token-file, or pass "
            "--allow-without-token"
        )


def is_loopback(host: str) -> bool:
    """Whether an address or host name is a loopback one."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
