"""ottla: a Kafka-compatible event log in one Python process.

`ottla.Broker` is the broker to embed; `ottla serve` is the one to run. Owns the public names, and
imports what is behind one when it is first used: the command line needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla.core.version import __version__

if TYPE_CHECKING:
    from ottla.embedded import (
        Broker,
        ErrorCode,
        KafkaError,
        Offsets,
        OpenTransaction,
        Record,
        StartError,
    )

__all__ = [
    "Broker",
    "ErrorCode",
    "KafkaError",
    "Offsets",
    "OpenTransaction",
    "Record",
    "StartError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ottla' has no attribute {name!r}")
    from ottla import embedded

    value = globals()[name] = getattr(embedded, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
