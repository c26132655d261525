"""Refused connections give one line that says what to check."""

from __future__ import annotations

import socket

import pytest

from shared.compute import ray_session as module
from shared.errors import ClusterError


def test_an_address_without_a_listener_is_named() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    error = module._refused(address, ConnectionError("could not connect\nmore"))
    assert str(error).startswith(f"nothing answers at {address}")


def test_a_session_at_an_address_without_a_listener_ends_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"nothing answers at {address}"), module.ray_session(address):
        pass


@pytest.mark.parametrize("text", ["Failed to connect", "Authentication failed: invalid token"])
def test_a_refusal_by_a_running_cluster_explains_the_token(text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        error = module._refused(f"127.0.0.1:{server.getsockname()[1]}", ConnectionError(text))
    assert "RAY_AUTH_TOKEN" in str(error)
    assert text in str(error)


def test_a_private_ray_that_fails_gives_its_first_line() -> None:
    assert str(module._refused("local", RuntimeError("\n no space \n trace"))) == "Ray at local: no space"
