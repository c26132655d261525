"""Access tokens, and the rule that only loopback addresses may be served without them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from augment_service.service.access import Access, check_binding, is_loopback
from augment_service.service.token_watch import TokenWatch
from augment_service.service.tokens import Token, TokenLimitError, read_tokens
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
    secrets = ("one-token-that-is-long", "two-token-that-is-long")
    access = Access([Token(secret=secret, name=secret[:3]) for secret in secrets])
    found = access.find(header)
    assert (found is not None) is is_allowed
    if header is not None and found is not None:
        assert found.secret.encode() in header
    assert not Access([]).needs_token


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
    assert [one.secret for one in read_tokens(None)] == ["a-token-of-the-tests", "another-token-here"]


def test_a_token_file_has_names_limits_comments_and_perhaps_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUGMENT_SERVICE_TOKENS", raising=False)
    path = tmp_path / "tokens"
    path.write_bytes(
        b"\xef\xbb\xbfa-token-of-the-tests\r\n\n# a comment\n  # another\n"
        b"team-a: another-token:with-a-colon max-requests=2\nbatch: the-third-token-here per-minute=60 max-requests=1\n"
    )
    found = read_tokens(str(path))
    assert [(one.name, one.secret) for one in found] == [
        ("token-1", "a-token-of-the-tests"),
        ("team-a", "another-token:with-a-colon"),
        ("batch", "the-third-token-here"),
    ]
    assert [(one.max_requests, one.per_minute) for one in found] == [(None, None), (2, None), (1, 60)]
    assert "the-third-token" not in repr(found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("short-secret", "line 1: a token must be 16"),
        ("name: short-secret", "line 1: a token must be 16"),
        ("a name: secret-secret-secret", "line 1: a token name may have up to 64"),
        ("secret-secret-secret max-request=1", "line 1: only max-requests=N"),
        ("secret-secret-secret max-requests=0", "line 1: only max-requests=N"),
        ("secret-secret-secret and-another-secret", "line 1: only max-requests=N"),
        ("secret-s\u00e9cret-secret", "line 1: a token must be 16"),
        ("a: secret-secret-secret\na: secret-secret-second", "two tokens are named a"),
        ("# nothing", "contains no tokens"),
    ],
)
def test_a_line_that_is_no_token_is_named_without_showing_it(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUGMENT_SERVICE_TOKENS", raising=False)
    path = tmp_path / "tokens"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        read_tokens(str(path))
    assert "secret" not in str(caught.value).replace("import secrets", "").replace("secrets.token", "")


def test_a_token_may_have_so_many_requests_at_a_time_also_after_a_reload() -> None:
    def token(limit: int) -> Token:
        return Token(secret="one-token-that-is-long", name="one", max_requests=limit)

    access = Access([token(2)])

    def find() -> Token:
        found = access.find(b"Bearer one-token-that-is-long")
        assert found is not None
        return found

    first, second = find(), find()
    first.begin()
    second.begin()
    with pytest.raises(TokenLimitError):
        find().begin()
    access.replace([token(3)])
    find().begin()
    with pytest.raises(TokenLimitError):
        find().begin()
    first.end()
    find().begin()


def test_a_token_may_start_so_many_requests_per_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("augment_service.service.tokens.time.monotonic", lambda: now)
    one = Token(secret="one-token-that-is-long", name="one", per_minute=3)
    for _ in range(3):
        one.begin()
    with pytest.raises(TokenLimitError) as caught:
        one.begin()
    assert caught.value.retry_after_seconds == pytest.approx(20)
    now += 21
    one.begin()
    with pytest.raises(TokenLimitError):
        one.begin()
    now += 600
    for _ in range(3):
        one.begin()
    with pytest.raises(TokenLimitError):
        one.begin()


def test_a_changed_file_is_accepted_when_two_looks_in_a_row_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first look may see half of what is being written, and half of a token is long enough to be one."""
    monkeypatch.delenv("AUGMENT_SERVICE_TOKENS", raising=False)
    path = tmp_path / "tokens"

    def names_after(text: str) -> list[str]:
        path.write_text(text, encoding="utf-8")
        asyncio.run(watch.look())
        return [one.name for one in access.tokens]

    path.write_text("a: one-token-that-is-long", encoding="utf-8")
    access = Access(read_tokens(str(path)))
    watch = TokenWatch(access, str(path))
    half, whole = (
        "a: one-token-that-is-long\nb: two-token-that-is",
        "a: one-token-that-is-long\nb: two-token-that-is-long",
    )
    assert names_after(half) == ["a"]
    assert names_after(whole) == ["a"]
    assert names_after(whole) == ["a", "b"]
    assert access.find(b"Bearer two-token-that-is") is None
    assert names_after("") == names_after("") == ["a", "b"]
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == [
        "tokens_not_read: the old ones stay valid"
    ]
    assert names_after(half) == ["a", "b"]
    watch.read()
    assert access.find(b"Bearer two-token-that-is") is not None
