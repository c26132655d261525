"""Access tokens, and the rule that only loopback addresses may be served without them."""

from __future__ import annotations

import pytest

from augment_service.service.access import Access, check_binding, is_loopback, read_tokens
from shared.errors import UsageError


@pytest.mark.parametrize(
    ("header", "is_allowed"),
    [
        (b"Bearer one-token-that-is-long", True),
        (b"bearer two-token-that-is-long", True),
        (None, False),
        (b"", False),
        (b"Bearer one-token-that-is-lonG", False),
        (b"Basic one-token-that-is-long", False),
        (b"Bearer", False),
        (b"Bearer one-token-that-is-long two-token-that-is-long", False),
        (b"\xff\xfe", False),
    ],
)
def test_only_a_bearer_header_with_a_known_token_is_allowed(header: bytes | None, is_allowed: bool) -> None:
    access = Access(["one-token-that-is-long", "two-token-that-is-long"])
    assert access.allows(header) is is_allowed
    assert Access([]).allows(header)


def test_only_loopback_addresses_do_without_tokens() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "[::1]", "LOCALHOST."):
        assert is_loopback(host)
        check_binding(host, False, False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "127.0.0.1.example.org", ""):
        assert not is_loopback(host)
        with pytest.raises(UsageError, match="can be reached"):
            check_binding(host, False, False)
        check_binding(host, True, False)
        check_binding(host, False, True)


def test_tokens_in_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGMENT_SERVICE_TOKENS", " a-token-of-the-tests , ,another-token-here ")
    assert read_tokens(None) == ["a-token-of-the-tests", "another-token-here"]
