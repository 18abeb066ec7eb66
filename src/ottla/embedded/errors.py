"""What an embedded broker raises for what the protocol answers with an error code.

Owns the way from a code to an exception. Must not know where the code came from.
"""

from __future__ import annotations

from ottla.protocol.errors import ErrorCode


class KafkaError(Exception):
    """The broker refused. `code` is what a client would be answered; the text is one sentence."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{message} ({code.name})")
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[KafkaError], tuple[ErrorCode, str]]:
        return type(self), (self.code, self.message)  # pytest-xdist sends it to another process


def raise_for(error: int, message: str | None, what: str) -> None:
    """Nothing for NONE; else KafkaError with the broker's own words, or with `what` failed."""
    if error:
        raise KafkaError(ErrorCode(error), message or f"{what} was refused")
