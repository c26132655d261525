"""Hostile requests over raw connections: mutated bodies, fields, headers, paths, and bytes that are not HTTP at all.

Every refusal must be a problem document, no response may be a 500, and the service must leak neither memory nor file
descriptors. The script starts its own service and sends it the given number of requests:

    python -m tests.support.hostile --requests 1000000 --log out/hostile.txt

To look for memory leaks, pass --cache-bytes 0; otherwise the candidate cache grows up to its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.models import save_random_model, save_random_vectors
from tests.support.service import TOKEN, Service

ROUTES = ("/v1/augment", "/v1/candidates", "/v1/augment/stream")
OTHERS = (
    "/",
    "/page.js",
    "/docs",
    "/openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
    "/info",
    "/favicon.ico",
    "/gone",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "SPAM")
WORDS = ["the", "quick", "brown", "fox", "a", "lazy", "dog", "great", "movie", "🦊", "ünï", "電影", "<b>", "'", '"']
WORDS += ["\\", "\t", "\u202e", "\x00", "\ud83d"]
LIMITS = ["--max-body-bytes", "100000", "--max-texts", "4", "--max-text-characters", "600", "--max-n-a", "30"]
LIMITS += ["--max-k", "20", "--body-seconds", "2", "--request-seconds", "20"]
CLIENTS = 12
SECONDS_PER_ANSWER = 60


@dataclass(frozen=True, slots=True)
class Hostile:
    """Bytes to send. may_hang_up: the service may close the connection without a word."""

    sent: bytes
    is_head: bool = False
    may_hang_up: bool = False


@dataclass(slots=True)
class Tally:
    """Answers by status, and what should not have happened."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def hostile_request(rng: random.Random) -> Hostile:
    """One request of a random kind."""
    return rng.choice((_mutated_body, _mutated_body, _odd_fields, _odd_fields, _odd_headers, _odd_path, _noise))(rng)


def _text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(12)))


def _good(rng: random.Random) -> dict[str, Any]:
    texts: list[Any] = [_text(rng) or "a cat" for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.2:
        texts.append([_text(rng), _text(rng)])
    body: dict[str, Any] = {"texts": texts, "k": rng.randrange(1, 8)}
    if rng.random() < 0.5:
        body |= {"n_a": rng.randrange(4), "seed": rng.randrange(2**63)}
    return body


def _value(rng: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice([None, True, False, 0, -1, 1, 5.0, 5.5, 1e308, -0.0, 2**31, 2**53 + 1, 2**63, 10**30]),
        lambda: _text(rng),
        lambda: rng.choice(["", "each", "single", "pair", "reference", "all", "x" * 700, "preserve", "match", "urls"]),
    ]
    if depth < 3:
        kinds.append(lambda: [_value(rng, depth + 1) for _ in range(rng.randrange(5))])
        kinds.append(lambda: {_text(rng)[:9]: _value(rng, depth + 1) for _ in range(rng.randrange(4))})
    return rng.choice(kinds)()


def _mutated_body(rng: random.Random) -> Hostile:
    body = bytearray(json.dumps(_good(rng)).encode())
    for _ in range(rng.randrange(1, 6)):
        place, change = rng.randrange(len(body)), rng.randrange(3)
        if change == 0:
            body[place] = rng.randrange(256)
        elif change == 1 and len(body) > 10:
            del body[place : place + rng.randrange(1, 8)]
        else:
            body[place:place] = body[place : place + rng.randrange(1, 20)]
    return Hostile(_post(rng.choice(ROUTES), bytes(body[:90_000])))


def _odd_fields(rng: random.Random) -> Hostile:
    body = _good(rng)
    names = ["texts", "k", "n_a", "p_t", "seed", "first_id", "context", "words", "text", "filter", "case", "protect"]
    for name in rng.sample([*names, "conditioning", "pairs", "wings"], rng.randrange(1, 4)):
        body[name] = _value(rng)
    return Hostile(_post(rng.choice(ROUTES), json.dumps(body).encode()[:90_000]))


def _odd_headers(rng: random.Random) -> Hostile:
    body = json.dumps(_good(rng)).encode()
    odd = rng.choice(
        (
            b"Content-Type: text/plain",
            b"Content-Type: application/json; charset=" + rng.randbytes(5).hex().encode(),
            b"X-Request-Id: " + "ü \t'".encode() * 3,
            b"Origin: null",
            b"Accept-Encoding: gzip;q=" + rng.choice((b"x", b"0", b"1", b"")),
            b"Authorization: " + rng.choice((b"Basic abc", b"Bearer", b"Bearer wrong", b"\xff")),
            b"X: " + b"y" * rng.choice((10, 9_000, 70_000)),
            b"Upgrade: websocket\r\nConnection: Upgrade",
            b"Expect: 100-continue",
            b"Host: evil.example",
        )
    )
    return Hostile(_post(rng.choice(ROUTES), body, odd), may_hang_up=True)


def _odd_path(rng: random.Random) -> Hostile:
    path = rng.choice((*ROUTES, *OTHERS))
    if rng.random() < 0.5:
        path += rng.choice(("/", "?a=%00", "%2e%2e/", "//", "?" + "q" * 3000, ";x", "/%ff%fe", "#f", "\\..\\"))
    method = rng.choice(METHODS)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    return Hostile(head.encode(), is_head=method == "HEAD", may_hang_up=method == "CONNECT")


def _noise(rng: random.Random) -> Hostile:
    start = rng.choice(
        (b"", b"POST /v1/augment HTTP/1.1\r\n", b"GET / HTTP/9.9\r\n", b"POST /v1/augment HTTP/1.1\r\nHost: a\r\n")
    )
    end = rng.choice(
        (b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", b"Content-Length: -1\r\n\r\n", b"Content-Length: 5\r\n" * 2)
    )
    return Hostile(
        start + rng.choice((rng.randbytes(rng.randrange(1, 200)), end, b": \r\n\r\n")) + b"\r\n\r\n", may_hang_up=True
    )


def _post(path: str, body: bytes, more: bytes = b"") -> bytes:
    lines = [f"POST {path} HTTP/1.1".encode(), b"Host: localhost"]
    if not more.startswith(b"Authorization"):
        lines.append(f"Authorization: Bearer {TOKEN}".encode())
    if not more.startswith(b"Content-Type"):
        lines.append(b"Content-Type: application/json")
    lines += [more] if more else []
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


async def send_all(url: str, number: int, seed: int, tally: Tally) -> None:
    """Send so many requests over a few connections, and tally their answers."""
    host, port = url.removeprefix("http://").split(":")

    async def client(first: int) -> None:
        rng, connection = random.Random(seed * 1_000_003 + first), None
        for _ in range(first, number, CLIENTS):
            one = hostile_request(rng)
            if connection is None:
                connection = await asyncio.open_connection(host, int(port))
            reader, writer = connection
            is_open = False
            try:
                writer.write(one.sent)
                if one.may_hang_up:
                    # What is sent may be only the beginning of a request: nothing more will come.
                    writer.write_eof()
                is_open = await asyncio.wait_for(_answer(one, reader, tally), SECONDS_PER_ANSWER)
            except (asyncio.IncompleteReadError, ConnectionError):
                if not one.may_hang_up:
                    tally.faults.append(f"no answer to {one.sent[:300]!r}")
            except TimeoutError:
                tally.faults.append(f"no answer within {SECONDS_PER_ANSWER} s to {one.sent[:300]!r}")
            if not is_open or one.may_hang_up:
                writer.close()
                connection = None
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*map(client, range(CLIENTS)))


async def _answer(one: Hostile, reader: asyncio.StreamReader, tally: Tally) -> bool:
    """Read one answer. Returns whether the connection stays open."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if status != 100:
            break
    body = b"" if one.is_head or status == 204 else await _body(head, reader)
    tally.statuses[status] += 1
    is_problem = b"application/problem+json" in head
    if status == 500 or (status >= 400 and not is_problem and not one.is_head and b'"status"' not in body):
        tally.faults.append(f"{status} {body[:200]!r} to {one.sent[:300]!r}")
    if b'"code":"internal"' in body[-2_000:]:
        tally.faults.append(f"internal error in a stream, to {one.sent[:300]!r}")
    return b"connection: close" not in head


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    if b"transfer-encoding: chunked" in head:
        parts = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readexactly(2)
        return b"".join(parts)
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    return await reader.readexactly(int(length)) if length else await reader.read()


def resources(service: Service) -> tuple[int, int]:
    """Resident bytes and open file descriptors of a service."""
    process = Path(f"/proc/{service.process.pid}")
    line = next(one for one in (process / "status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) * 1024, len(list((process / "fd").iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--cache-bytes", type=int, help="as in `augment_service serve` (default: the service's)")
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, options.log.open("w", encoding="utf-8") as log:
        folder = Path(name)
        model = save_random_model("bert-uncased", folder / "model", num_heads=2)
        vectors = save_random_vectors(folder / "glove.txt")
        model_options = ["--mlm", str(model), "--glove", str(vectors), "--dtype", "fp32", "--threads", "1"]
        if options.cache_bytes is not None:
            model_options += ["--cache-bytes", str(options.cache_bytes)]
        with Service(*model_options, *LIMITS, log=folder / "log.txt", tokens=TOKEN) as service:
            tally, sent, began, part = Tally(), 0, time.monotonic(), 2_000
            while sent < options.requests and time.monotonic() - began < 60 * options.minutes:
                asyncio.run(send_all(service.url, part, sent, tally))
                sent += part
                memory, descriptors = resources(service)
                statuses = " ".join(f"{status}:{count}" for status, count in sorted(tally.statuses.items()))
                line = f"{sent} requests, {time.monotonic() - began:.0f} s, {memory // 10**6} MB, {descriptors} files, "
                print(f"{line}faults {len(tally.faults)}, {statuses}", file=log, flush=True)
                for fault in tally.faults[:20]:
                    print(f"  {fault}", file=log, flush=True)
                if tally.faults:
                    raise SystemExit(1)


if __name__ == "__main__":
    main()
