"""Addresses in configuration."""

from __future__ import annotations

import pytest

from ottla.core import options
from ottla.core.config import InvalidConfig
from ottla.core.endpoints import Endpoint, Listener, parse_listeners


def test_the_default_is_loopback_in_both_families() -> None:
    endpoints = [listener.endpoint for listener in parse_listeners(options.LISTENERS.default)]
    assert endpoints == [Endpoint("127.0.0.1", 9092), Endpoint("::1", 9092)]


def test_a_listener_needs_no_name() -> None:
    assert parse_listeners("h:1, PLAINTEXT://[::]:0") == [
        Listener("PLAINTEXT", Endpoint("h", 1)),
        Listener("PLAINTEXT", Endpoint("::", 0)),
    ]


def test_an_empty_host_means_every_address() -> None:
    assert parse_listeners("PLAINTEXT://:9092")[0].endpoint == Endpoint("", 9092)


def test_nothing_names_no_listener() -> None:
    assert parse_listeners("") == []


def test_an_ipv6_host_is_written_in_brackets() -> None:
    assert str(Endpoint("::1", 9092)) == "[::1]:9092"
    assert str(Endpoint("h", 9092)) == "h:9092"


@pytest.mark.parametrize("text", ["h", "h:", "h:x", "h:70000", "::1:9092", "h:-1", "SSL://h:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_listeners(text)


def test_an_address_can_be_given_once() -> None:
    with pytest.raises(InvalidConfig, match="given twice"):
        parse_listeners("h:1,h:1")
    assert len(parse_listeners("h:0,h:0")) == 2
