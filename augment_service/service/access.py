"""Access control: bearer tokens, compared in constant time and optional only on a loopback address."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from augment_service.service.tokens import TOKENS_VARIABLE, Token
from shared.errors import UsageError


class Access:
    """The access tokens; without any, every request is accepted. Use from one event loop."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens: list[tuple[bytes, Token]] = []
        self.replace(tokens)

    @property
    def needs_token(self) -> bool:
        """Whether requests must carry a token."""
        return bool(self._tokens)

    @property
    def tokens(self) -> list[Token]:
        """The accepted tokens, in order."""
        return [token for _, token in self._tokens]

    def replace(self, tokens: Iterable[Token]) -> None:
        """Replace the accepted tokens. A token that was already accepted keeps its usage counts."""
        usages = {digest: token.usage for digest, token in self._tokens}
        found = [(_digest(token.secret.encode()), token) for token in tokens]
        self._tokens = [(digest, replace(token, usage=usages.get(digest, token.usage))) for digest, token in found]

    def find(self, authorization: bytes | None) -> Token | None:
        """The token in an Authorization header, looked up in constant time."""
        scheme, _, given = (authorization or b"").partition(b" ")
        digest = _digest(given.strip())
        # Compare all tokens, so that timing reveals neither which one matched nor how long a prefix did.
        matches = [token for one, token in self._tokens if hmac.compare_digest(digest, one)]
        return matches[0] if matches and scheme.lower() == b"bearer" else None


def check_binding(host: str, has_tokens: bool, allow_without_token: bool) -> None:
    """Raises UsageError when other machines could send requests without a token."""
    if not has_tokens and not allow_without_token and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines: set {TOKENS_VARIABLE} or --token-file, or pass "
            "--allow-without-token"
        )


def is_loopback(host: str) -> bool:
    """Whether an address or host name is loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
