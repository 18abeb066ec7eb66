"""The embedded broker: `Broker` and what its methods give, take and raise.

Owns the names that `ottla` itself offers too. Must not be imported by `import ottla`, which asks
for it when one of them is first used.
"""

from ottla.embedded.broker import Broker
from ottla.embedded.errors import KafkaError
from ottla.embedded.inside import Offsets, OpenTransaction
from ottla.embedded.records import Record
from ottla.node import StartError
from ottla.protocol.errors import ErrorCode

__all__ = [
    "Broker",
    "ErrorCode",
    "KafkaError",
    "Offsets",
    "OpenTransaction",
    "Record",
    "StartError",
]
