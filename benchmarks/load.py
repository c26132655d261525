"""Load generator for a service on this machine: some clients, each with one keep-alive connection, for some time.

It implements HTTP itself, because a client library would use more CPU time than the service. It prints one JSON line. A
refused client waits for Retry-After seconds (at most two), then continues with the next text.

    python benchmarks/load.py 127.0.0.1:8000 texts.json --clients 16 --seconds 10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HEAD = b"POST /v1/augment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@dataclass
class Tally:
    """Response counts and latencies in seconds, by status."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    without_retry_after: int = 0

    def add(self, status: int, seconds: float) -> None:
        """Count one response."""
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(seconds)


async def client(host: str, port: int, bodies: list[bytes], number: int, step: int, until: float, tally: Tally) -> None:
    """One connection that sends requests until the time is over."""
    reader, writer = await asyncio.open_connection(host, port)
    place = number
    while time.monotonic() < until:
        began = time.monotonic()
        body = bodies[place % len(bodies)]
        place += step
        writer.write(HEAD % len(body) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        tally.add(status, time.monotonic() - began)
        if status == 503:
            named = head.partition(b"retry-after:")[2].partition(b"\r\n")[0].strip()
            tally.without_retry_after += not named
            await asyncio.sleep(min(float(named or 1), 2.0))
    writer.close()


async def run(options: argparse.Namespace) -> dict[str, object]:
    host, _, port = options.address.partition(":")
    if host not in ("127.0.0.1", "localhost"):
        sys.exit("the address must be on this machine")
    texts = json.loads(Path(options.texts).read_text(encoding="utf-8"))
    bodies = [
        json.dumps({"texts": [text], "n_a": options.n_a, "seed": number}).encode() for number, text in enumerate(texts)
    ]
    tally = Tally()
    until = time.monotonic() + options.seconds
    began = time.monotonic()
    # Each run starts where the previous one stopped, so that no sentence is cached.
    jobs = [
        client(host, int(port), bodies, options.first + number, options.clients, until, tally)
        for number in range(options.clients)
    ]
    await asyncio.gather(*jobs)
    spent = time.monotonic() - began
    good = sorted(tally.seconds.get(200, [0.0]))
    refused = sorted(tally.seconds.get(503, [0.0]))
    return {
        "per_second": round(tally.statuses[200] / spent, 2),
        "p50_ms": round(good[len(good) // 2] * 1000, 1),
        "p99_ms": round(good[int(len(good) * 0.99)] * 1000, 1),
        "refused": tally.statuses[503],
        "refused_p99_ms": round(refused[int(len(refused) * 0.99)] * 1000, 1),
        "without_retry_after": tally.without_retry_after,
        "others": {str(one): count for one, count in tally.statuses.items() if one not in (200, 503)},
        "good": tally.statuses[200],
        "answers": sum(tally.statuses.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("texts", help="JSON list of strings")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--n-a", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        pass
    main()
