"""The latest offset of every key that was met: what a compaction compares each record with.

Owns the tables and their bound in memory. Must not know records or batches: keys come as `Token`s.

A token is the key itself where that is shorter than a hash, else 16 bytes of one: Kafka compares
MD5 hashes, too, and takes two keys of one hash for one. A dict is fastest and takes about 160
bytes a key; once it has filled its share of the room, what is in it moves on into rows of packed
entries, which take 32 and somewhat longer to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final, Protocol, TypeAlias

Token: TypeAlias = bytes

TOKEN_BYTES: Final = 16
BYTES_EACH: Final = 32
"""Memory for a packed entry: 16 + 8 bytes, and its share of a row's own 60 and of its slack."""
DICT_BYTES_EACH: Final = 176
"""Memory for a dict's entry: token 64, offset 32, and up to 80 of a table that just grew."""
_DICT_SHARE: Final = 2  # of the room; packing then needs some beside what is packed
_MARKS_SHARE: Final = 8
_ROW_ENTRIES: Final = 16
_ENTRY: Final = TOKEN_BYTES + 8
# Makes tokens equally long, and no two of them equal: the last byte tells how long it was.
_PADS: Final = [bytes([length]) * (TOKEN_BYTES - length) for length in range(TOKEN_BYTES + 1)]


class _Digest(Protocol):
    def digest(self) -> bytes: ...


def _hashing() -> Callable[[bytes], _Digest]:
    """MD5 without OpenSSL's detours (0.4 instead of 0.9 µs), or what there is instead."""
    try:
        md5: Callable[[bytes], _Digest] = import_module("_md5").md5
    except ImportError:
        import hashlib

        return lambda data: hashlib.blake2b(data, digest_size=TOKEN_BYTES)
    return md5


hashed: Final = _hashing()


def token_of(key: bytes) -> Token:
    """What stands for a key. No key that is its own token is as long as a hash."""
    return key if len(key) < TOKEN_BYTES else hashed(key).digest()


class Latest(Protocol):
    """A dict of tokens to offsets, or something that can be asked like one."""

    def __len__(self) -> int: ...

    def get(self, token: Token, default: int, /) -> int: ...

    def __setitem__(self, token: Token, offset: int, /) -> None: ...


class PackedOffsets:
    """Rows of packed (hash, offset), a row for each value of a few bits of the hash."""

    __slots__ = ("_count", "_mask", "_rows")

    def __init__(self, entries_max: int) -> None:
        rows = 1 << max(0, (entries_max // _ROW_ENTRIES).bit_length() - 1)
        self._mask = rows - 1
        self._rows = [bytearray() for _ in range(rows)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __setitem__(self, token: Token, offset: int) -> None:
        token += _PADS[len(token)]
        row = self._rows[hash(token) & self._mask]
        at = row.find(token)
        while at > 0 and at % _ENTRY:  # across two entries
            at = row.find(token, at + 1)
        if at < 0:
            row += token + offset.to_bytes(8)
            self._count += 1
        else:
            row[at + TOKEN_BYTES : at + _ENTRY] = offset.to_bytes(8)

    def get(self, token: Token, default: int) -> int:
        token += _PADS[len(token)]
        row = self._rows[hash(token) & self._mask]
        at = row.find(token)
        while at > 0 and at % _ENTRY:
            at = row.find(token, at + 1)
        return default if at < 0 else int.from_bytes(row[at + TOKEN_BYTES : at + _ENTRY])


GONE: Final = 1
FAREWELL: Final = 2


class Superseded:
    """A byte for each offset from `first` on: GONE if a later one has taken its place, FAREWELL if
    it is the latest of its key and has no value.

    With it what was noted is not asked for key by key again. It ends at a limit; what lies behind
    is, then.
    """

    __slots__ = ("_bytes_max", "first", "marks")

    def __init__(self, first: int, bytes_max: int) -> None:
        self.first = first
        self.marks = bytearray()
        self._bytes_max = bytes_max

    @property
    def end(self) -> int:
        """Offsets from here on have no byte."""
        return self.first + len(self.marks)

    def reach(self, end: int) -> None:
        """Make room for offsets below `end`, if there is any."""
        more = end - self.end
        if more > 0 and end - self.first <= self._bytes_max:
            self.marks += bytes(more)


class LatestOffsets:
    """The table of one round, within `bytes_max`. Ask `room` before a batch, then use `table`."""

    __slots__ = ("_dict_max", "entries_max", "superseded", "table")

    def __init__(self, bytes_max: int, first: int = 0) -> None:
        marks_max = bytes_max // _MARKS_SHARE
        self.superseded = Superseded(first, marks_max)
        self.entries_max = max((bytes_max - marks_max) // BYTES_EACH, 1)
        self._dict_max = bytes_max // _DICT_SHARE // DICT_BYTES_EACH
        self.table: Latest = {}

    def __len__(self) -> int:
        return len(self.table)

    def room(self, count: int) -> bool:
        """Whether `count` keys more fit. One batch always does, or a round would come to nothing.

        May put another `table` in place of the one there is.
        """
        wanted = len(self.table) + count
        if self.table and wanted > self.entries_max:
            return False
        if isinstance(self.table, dict) and wanted > self._dict_max:
            self._pack(self.table, wanted)
        return True

    def _pack(self, offsets: dict[Token, int], wanted: int) -> None:
        packed = PackedOffsets(max(self.entries_max, wanted))
        while offsets:  # from one into the other, not both at once
            token, offset = offsets.popitem()
            packed[token] = offset
        self.table = packed
