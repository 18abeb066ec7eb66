"""Caller: who sent a request, as a group remembers it.

Owns that shape.
"""

from __future__ import annotations

from typing import NamedTuple


class Caller(NamedTuple):
    """`host` is "/address", as Kafka writes it; `version` that of the request."""

    client_id: str
    host: str
    version: int
