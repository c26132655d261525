"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

# Below the range from which Linux picks ports for outgoing connections and for servers that ask for any free one
# (net.ipv4.ip_local_port_range, 32768 and above): there, a port can be taken between this call and its use.
# Not one of Ray's default ports either.
LOW, HIGH = 20_000, 32_000
_RANDOM = random.SystemRandom()


def free_port() -> int:
    """A port of the loopback interface that is free now and that nobody else is likely to pick."""
    while True:
        port = _RANDOM.randrange(LOW, HIGH)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
