"""A long message encoded some elements at a time, so that nobody has to wait for all of it.

Owns the seams: what lies before the elements of its last array, between them, and after. Must not
know how an element is written; the compiled encoder does that, for a few of them at a time.
"""

from __future__ import annotations

import struct
from typing import Any

from ottla.protocol.codec import encoder
from ottla.protocol.primitives import write_uvarint
from ottla.protocol.schema import Message


class Pieces:
    """The bytes of one message, whose last field is an array that grows by `add`."""

    def __init__(self, cls: type[Message], version: int) -> None:
        last = cls.FIELDS[-1]
        assert last.is_array, f"{cls.__name__} doesn't end with an array"
        assert last.tag is None, f"{cls.__name__} ends with a tagged field"
        self._field = last.name
        self._cls = cls
        self._encode = encoder(cls, version)
        self._compact = cls.FLEXIBLE is not None and version >= cls.FLEXIBLE
        self._tail = b"\0" if self._compact else b""  # no tagged fields
        self._begins = len(self._head(cls()))
        self._pieces: list[bytes] = []
        self._count = 0

    def add(self, elements: list[Any]) -> None:
        """Encode some more elements. Raises CodecError as an encoder does."""
        whole = self._whole(self._cls(**{self._field: elements}))
        begins = self._begins + len(self._length(len(elements)))
        self._pieces.append(whole[begins : len(whole) - len(self._tail)])
        self._count += len(elements)

    def finish(self, message: Message) -> bytes:
        """All of it: the elements that were added, and the other fields as `message` has them."""
        setattr(message, self._field, [])
        return b"".join((self._head(message), self._length(self._count), *self._pieces, self._tail))

    def _head(self, message: Message) -> bytes:
        whole = self._whole(message)
        return whole[: len(whole) - len(self._tail) - len(self._length(0))]

    def _whole(self, message: Message) -> bytes:
        (whole,) = self._encode(message)
        assert type(whole) is bytes, "an array of file slices"
        return whole

    def _length(self, count: int) -> bytes:
        return write_uvarint(count + 1) if self._compact else struct.pack(">i", count)
