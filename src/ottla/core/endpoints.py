"""Addresses in configuration: `PLAINTEXT://host:port` or `host:port`, separated by commas.

Pure. Must not resolve names.
"""

from __future__ import annotations

from typing import NamedTuple

from ottla.core.config import InvalidConfig


class Endpoint(NamedTuple):
    """Where a client connects. An IPv6 host stands without brackets, as on the wire."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listener(NamedTuple):
    """A listener's name and address. An empty host means every address of the machine."""

    name: str
    endpoint: Endpoint


def parse_listeners(text: str, option: str = "listeners") -> list[Listener]:
    """The listeners that `text` names, in its order. Raises InvalidConfig.

    Kafka wants a name for each; here several may share one, and only equal addresses clash.
    A CONTROLLER listener, as in Kafka's own example files, is left out: there is no such thing.
    """
    parts = [part.strip() for part in text.split(",")]
    found = [
        _parse(part, option) for part in parts if part and not part.startswith("CONTROLLER://")
    ]
    for at, one in enumerate(found):
        if one.endpoint.port and any(one.endpoint == other.endpoint for other in found[:at]):
            raise InvalidConfig(f"{option}: {one.endpoint} is given twice")
    return found


def _parse(text: str, option: str) -> Listener:
    name, arrow, address = text.rpartition("://")
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidConfig(f"{option} takes HOST:PORT or NAME://HOST:PORT, not {text!r}")
    if arrow and name.upper() != "PLAINTEXT":
        raise InvalidConfig(f"{option}: only PLAINTEXT listeners are there yet, not {name!r}")
    return Listener("PLAINTEXT", Endpoint(host, int(port)))
