"""Clients that misuse the service, one kind after another, while well-behaved clients send small requests.

The service must answer every client that reads, send a problem document with every 5xx, keep its memory within the
limits set by the options, and leave no file descriptors open. The script starts its own service, with a small random
model, and writes a table:

    python -m tests.support.abuse --output benchmarks/results/abuse.md
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx

from augment_service.service.estimates import estimate
from augment_service.service.requests import AugmentRequest, CandidatesRequest
from tests.support.command import ROOT
from tests.support.hostile import resources
from tests.support.models import save_random_model, save_random_vectors
from tests.support.service import Service

SMALL = json.dumps({"texts": ["the cat"], "n_a": 1}).encode()
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")
HEADER_BYTES = 200_000_000
BLOCK = b"X-Y: " + b"y" * 65_000 + b"\r\n"
CONNECTION_BYTES = 256_000
"""What a connection may take on top of the budget: the head or the small body that it sends, and buffers."""
SLACK_BYTES = 250_000_000
"""Libraries take memory with the first passes and the first threads; the allocator keeps some of what was freed."""
CLOSE_SECONDS = 45.0
RETRY_SECONDS = 0.5
MAX_ANSWER_BYTES = 60_000_000
"""A little less than the default of --max-answer-bytes."""
Sender = Callable[[str, int, int, float, "Tally"], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """Answers by status, refusals without a problem document, and the bytes of headers that were sent."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    header_bytes: int = 0

    def add(self, answer: bytes) -> None:
        """Count an answer, of which at least the headers are given; nothing if the connection ended without one."""
        if len(answer) < 12:
            return
        status = int(answer[9:12])
        self.statuses[status] += 1
        if status >= 500 and b"application/problem+json" not in answer.partition(b"\r\n\r\n")[0].lower():
            self.faults.append(answer[:200].decode("latin-1"))


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    """A request, whose body may be said to be longer than it is."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


async def stalled_bodies(host: str, port: int, number: int, until: float, tally: Tally) -> None:
    """Begin a body and wait for what happens."""
    await _exchange(host, port, post("/v1/augment", b"{", 900), until, tally)


async def unread_streams(host: str, port: int, number: int, until: float, tally: Tally) -> None:
    """Ask for a long stream, and read its first bytes only."""
    texts = [" ".join(random.Random(number).choices(WORDS, k=9)) + f" {place}" for place in range(1_000)]
    reader, writer = await asyncio.open_connection(host, port, limit=2_048)
    try:
        writer.write(post("/v1/augment/stream", json.dumps({"texts": texts, "n_a": 40}).encode()))
        tally.add(await reader.readuntil(b"\r\n\r\n"))
        # The reader stops reading from the socket once its buffer is full; a refused client comes again soon.
        pause = 1.0 if reader.at_eof() else until - time.monotonic()
        await asyncio.sleep(max(0.0, min(pause, until - time.monotonic())))
    finally:
        writer.transport.abort()


async def long_headers(host: str, port: int, number: int, until: float, tally: Tally) -> None:
    """Send headers without an end, until the service has refused them or all 200 MB are sent."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        while tally.header_bytes < HEADER_BYTES and not reader.at_eof() and time.monotonic() < until:
            writer.write(BLOCK)
            tally.header_bytes += len(BLOCK)
            await writer.drain()
        tally.add(await asyncio.wait_for(reader.read(65_536), max(0.1, until - time.monotonic())))
    finally:
        writer.transport.abort()
    if tally.header_bytes >= HEADER_BYTES:
        await asyncio.sleep(max(0.0, until - time.monotonic()))


async def largest_bodies(host: str, port: int, number: int, until: float, tally: Tally) -> None:
    """Send the largest body that the limits on texts allow: 64 texts of 10,000 characters."""
    rng = random.Random(number)
    texts = [" ".join(rng.choices(WORDS, k=2_400))[:9_990] for _ in range(64)]
    body = json.dumps({"texts": texts, "k": 100, "words": "all", "context": "unmasked"}).encode()
    await _exchange(host, port, post("/v1/candidates", body), until, tally)


async def largest_answers(host: str, port: int, number: int, until: float, tally: Tally) -> None:
    """Ask for the largest answer that is computed at all: half of them the same texts, which are then cached."""
    await _exchange(host, port, post("/v1/candidates", _largest_answer(number if number % 2 else 0)), until, tally)


async def admitted_answers(host: str, port: int, number: int, until: float, tally: Tally) -> None:
    """Ask for large answers until one is admitted; every second client then reads it as slowly as it may."""
    path, sent = _admitted_request(number // 2 % 2)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(max(0.1, until - time.monotonic())):
            writer.write(post(path, sent))
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer[9:12] != b"200":
                tally.add(answer + await reader.read(4_000))
                await asyncio.sleep(RETRY_SECONDS)
                return
            tally.add(answer)
            left = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            while left and (part := await reader.read(65_536)):
                left -= len(part)
                await asyncio.sleep(number % 2)
    finally:
        writer.transport.abort()


ATTACKS: dict[str, Sender] = {
    "stalled bodies": stalled_bodies,
    "unread streams": unread_streams,
    "long headers": long_headers,
    "largest bodies": largest_bodies,
    "largest answers": largest_answers,
    "admitted answers": admitted_answers,
}
MOST_CONNECTIONS = {"admitted answers": 64}
"""More clients would only be refused, which the attack before it shows."""


@functools.cache
def _admitted_request(seed: int) -> tuple[str, bytes]:
    """One of two requests, so that they are soon cached: many candidates, or as many samples as may be drawn."""
    if seed % 2:
        return "/v1/candidates", _largest_answer(seed)
    rng = random.Random(seed)
    texts: list[str | list[str]] = [" ".join(rng.choices(WORDS, k=300)) + f" {place}" for place in range(64)]
    fields: dict[str, Any] = {"n_a": 100, "p_t": 0.4, "words": "all", "context": "unmasked"}
    one = estimate(AugmentRequest(texts=texts[:1], **fields), is_stream=False).answer_bytes
    return "/v1/augment", json.dumps(fields | {"texts": texts[: MAX_ANSWER_BYTES // one]}).encode()


def _largest_answer(seed: int, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
    rng, texts = random.Random(seed), list[str]()
    body: dict[str, Any] = {"k": 100, "words": "all", "context": "unmasked"}
    one = " ".join(rng.choices(WORDS, k=300))
    answer_bytes = estimate(CandidatesRequest(texts=[one], **body), is_stream=False).answer_bytes
    for place in range(min(64, max_bytes // answer_bytes)):
        texts.append(f"{one} {place}")
    return json.dumps(body | {"texts": texts}).encode()


async def _exchange(host: str, port: int, sent: bytes, until: float, tally: Tally) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(max(0.1, until - time.monotonic())):
            writer.write(sent)
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer[9:12] != b"200":
                answer += await reader.read(4_000)
            tally.add(answer)
            # An answer of many megabytes is read as it comes, and not kept.
            length = answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            left = int(length) if length and answer[9:12] == b"200" else 0
            while left and (part := await reader.read(262_144)):
                left -= len(part)
    finally:
        writer.transport.abort()


async def attack(kind: str, address: str, connections: int, seconds: float) -> Tally:
    """Let so many clients misuse the service, each again as soon as it was answered or cut off."""
    tally, until = Tally(), time.monotonic() + seconds
    host, _, port = address.partition(":")

    async def client(number: int) -> None:
        while time.monotonic() < until:
            try:
                await ATTACKS[kind](host, int(port), number, until, tally)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                await asyncio.sleep(0.05)

    await asyncio.gather(*map(client, range(connections)))
    return tally


@dataclass(slots=True)
class Probe:
    """Small requests: their seconds if answered 200, and how many were refused."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    def quantile(self, part: float) -> float:
        """Milliseconds; not a number without any answer."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 if ordered else float("nan")


async def probe(address: str, tally: Tally, *, goes_on: Callable[[], bool]) -> tuple[Probe, float]:
    """Send small requests one after another, each on a connection of its own. Returns them and the longest wait."""
    host, _, port = address.partition(":")
    found, longest = Probe(), 0.0
    while goes_on():
        began = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(post("/v1/augment", SMALL).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            answer = await asyncio.wait_for(reader.read(), 60)
            writer.close()
        except (OSError, TimeoutError) as error:
            tally.faults.append(f"a small request was not answered: {type(error).__name__}")
            continue
        took = time.monotonic() - began
        longest = max(longest, took)
        tally.add(answer)
        if answer[9:12] == b"200":
            found.seconds.append(took)
        else:
            found.refused += 1
        await asyncio.sleep(0.01)
    return found, longest


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attack. Memory in bytes; `longest` seconds of a small request, whether answered or refused.

    reserved: the most that the requests in flight were seen to hold of the memory budget.
    """

    kind: str
    tally: Tally
    quiet: Probe
    during: Probe
    longest: float
    peak: int
    allowed: int
    descriptors_left: int
    reserved: int


def outcome_of(service: Service, kind: str, connections: int, seconds: float, budget: int) -> Outcome:
    """Run one attack from a process of its own. `budget`: bytes that requests and cache may take."""
    address, tally = service.url.removeprefix("http://"), Tally()
    until = time.monotonic() + min(seconds, 5.0)
    quiet, _ = asyncio.run(probe(address, tally, goes_on=lambda: time.monotonic() < until))
    before, descriptors = resources(service)
    command = [sys.executable, "-m", "tests.support.abuse", "--attack", kind, "--address", address]
    connections = min(connections, MOST_CONNECTIONS.get(kind, connections))
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    attacker = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    peak, reserved, asks_again = before, 0, time.monotonic()

    def goes_on() -> bool:
        nonlocal peak, reserved, asks_again
        peak = max(peak, resources(service)[0])
        if time.monotonic() > asks_again:
            reserved, asks_again = max(reserved, reserved_bytes(service)), time.monotonic() + 0.5
        return attacker.poll() is None

    during, longest = asyncio.run(probe(address, tally, goes_on=goes_on))
    result = json.loads(attacker.communicate()[0])
    tally.faults += result["faults"]
    statuses = Counter({int(status): count for status, count in result["statuses"].items()})
    whole = Tally(statuses, tally.faults, result["header_bytes"])
    deadline = time.monotonic() + CLOSE_SECONDS
    while (left := resources(service)[1] - descriptors) > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    allowed = before + budget + connections * CONNECTION_BYTES + SLACK_BYTES
    return Outcome(kind, whole, quiet, during, longest, peak, allowed, left, reserved)


def reserved_bytes(service: Service) -> int:
    """What the requests in flight hold of the memory budget; 0 if the service does not say so in time."""
    try:
        text = httpx.get(f"{service.url}/metrics", timeout=10).text
    except httpx.HTTPError:
        return 0
    found = re.search(r"^augment_service_reserved_bytes ([0-9.e+]+)", text, re.MULTILINE)
    return int(float(found.group(1))) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--output", type=Path, help="Markdown file for the table")
    parser.add_argument("--only", choices=list(ATTACKS), action="append", help="run this attack; may be repeated")
    parser.add_argument("--attack", choices=list(ATTACKS), help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Otherwise, pauses of this process would count as the service's.
    gc.disable()
    if options.attack:
        tally = asyncio.run(attack(options.attack, options.address, options.connections, options.seconds))
        found = {"statuses": tally.statuses, "faults": tally.faults[:20], "header_bytes": tally.header_bytes}
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        lines = _table(Path(name), options.connections, options.seconds, options.only or list(ATTACKS))
    text = "\n".join([*lines, ""])
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


def _table(folder: Path, connections: int, seconds: float, kinds: list[str]) -> list[str]:
    model, vectors = save_random_model("bert-uncased", folder / "model", num_heads=2), folder / "glove.txt"
    save_random_vectors(vectors)
    options = ["--mlm", str(model), "--glove", str(vectors), "--dtype", "fp32", "--threads", "1"]
    lines = ["# Clients that misuse the service", ""]
    lines += [f"`python -m tests.support.abuse --connections {connections} --seconds {seconds:g}` ({date.today()},"]
    lines += [f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run; default limits)", ""]
    columns = ["attack", "small request alone, p50/p99 ms", "during the attack", "refused", "longest, s", "its answers"]
    columns += ["faults", "peak MB", "allowed MB", "files left", "reserved MB"]
    lines += [f"| {' | '.join(columns)} |"]
    lines += ["|---" * len(columns) + "|"]
    with Service(*options, log=folder / "log.txt") as service:
        for kind in kinds:
            one = outcome_of(service, kind, connections, seconds, 1_256_000_000)
            lines.append(_row(one))
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def _row(one: Outcome) -> str:
    statuses = " ".join(f"{status}:{count}" for status, count in sorted(one.tally.statuses.items())) or "none"
    quiet, during = (f"{probe.quantile(0.5):.0f}/{probe.quantile(0.99):.0f}" for probe in (one.quiet, one.during))
    sizes = f"{one.peak // 10**6} | {one.allowed // 10**6} | {one.descriptors_left} | {one.reserved // 10**6}"
    num_sent = len(one.during.seconds) + one.during.refused
    small = f"{quiet} | {during} | {one.during.refused} of {num_sent} | {one.longest:.1f}"
    return f"| {one.kind} | {small} | {statuses} | {len(one.tally.faults)} | {sizes} |"


if __name__ == "__main__":
    main()
