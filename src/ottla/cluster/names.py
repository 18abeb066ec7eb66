"""Which names a topic may have: Kafka's rules, since a name becomes a directory and a metric.

Only names that pass `name_fault` ever reach the file system (H74). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME_LENGTH_MAX = 249
INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})
METADATA_TOPIC = "__cluster_metadata"
"""Kafka's own log of metadata. Nobody may create a topic so named."""

_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")


def name_fault(name: str) -> str | None:
    """Why `name` can't be a topic's, in Kafka's words, or None if it can."""
    if not name:
        return "Topic name is invalid: the empty string is not allowed"
    if name in (".", ".."):
        return f"Topic name is invalid: '{name}' is not allowed"
    if len(name) > NAME_LENGTH_MAX:
        return (
            f"Topic name is invalid: the length of '{name[:20]}…' is longer than the max "
            f"allowed length {NAME_LENGTH_MAX}"
        )
    # fullmatch, because `$` would let a newline at the end pass.
    if _LEGAL.fullmatch(name) is None:
        return (
            f"Topic name is invalid: {name!r} contains one or more characters other than ASCII "
            "alphanumerics, '.', '_' and '-'"
        )
    return None


def metric_name(name: str) -> str:
    """The name as metrics show it. Two topics must not share it."""
    return name.replace(".", "_")


def collision(name: str, others: Iterable[str]) -> str | None:
    """The first other name that metrics could not tell from this one."""
    if "." not in name and "_" not in name:
        return None
    shown = metric_name(name)
    return next((other for other in others if other != name and metric_name(other) == shown), None)


def is_internal(name: str) -> bool:
    """Whether the cluster keeps its own records there; clients see a flag."""
    return name in INTERNAL_TOPICS
