"""Writes the Python source of a decoder: one straight line for one message in one version.

Owns how bytes become values, and the checks on the way: whatever a length or a count claims is
held against the bytes that are left before it is used. Must not run what it writes (`codec.py`).

Neighbouring fields of fixed size, and the length of what follows them, are one `unpack`: that
is what makes a decoder fast, together with a class made without its constructor. What a reader
of the source meets: `m0` the message, `m1` … the structs inside it, `at` where the next byte
is, `size` where the bytes end, `n` the length just read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ottla.protocol import primitives
from ottla.protocol.schema import FIXED, Field, Message, Struct

_UNPACK_FAILS: Final = (struct.error, IndexError, UnicodeDecodeError)
"""What reading past the end, or text that isn't UTF-8, raises inside a decoder."""


ELEMENTS_MAX: Final = 200_000
"""Most elements of all arrays of one request together, twice the partitions it can name.

An element of two bytes becomes an object of a hundred, or more: without this, a request as large as
is allowed would take forty times its size. A response comes from a peer of our choice: no limit.
"""


def size_min(cls: type[Struct], version: int, flexible: bool) -> int:
    """The fewest bytes that a struct can take: what bounds the count of an array."""
    total = 1 if flexible else 0
    for field in cls.FIELDS:
        if not field.is_in(version) or field.tag is not None:
            continue
        if field.is_array or field.kind in {"bytes", "records"}:
            total += 1 if flexible else 4
        elif field.kind == "string":
            total += 1 if flexible else 2
        elif field.kind == "struct":
            assert field.struct is not None
            inner = size_min(field.struct, version, flexible)
            total += 1 if field.is_nullable(version) else inner
        else:
            total += struct.calcsize(f">{FIXED[field.kind]}")
    return total


class DecoderSource:
    """Collects the lines of one decoder, and the names that they use."""

    def __init__(self, cls: type[Message], version: int) -> None:
        self.version = version
        self.flexible = cls.FLEXIBLE is not None and version >= cls.FLEXIBLE
        self.names: dict[str, Any] = {
            "new": object.__new__,
            "unpack_from": struct.unpack_from,
            "UNPACK_FAILS": _UNPACK_FAILS,
            "CodecError": primitives.CodecError,
            "read_uvarint": primitives.read_uvarint,
            "tags_count": primitives.tags_count,
            "next_tag": primitives.next_tag,
            "skip_tags": primitives.skip_tags,
            "bad_length": primitives.bad_length,
            "bad_count": primitives.bad_count,
            "bad_tag_size": primitives.bad_tag_size,
        }
        self._lines: list[str] = []
        self._indent = 2
        self._run: list[tuple[str, str]] = []  # (target, letter) of fixed fields not yet read
        self._depth = -1
        self._is_bounded = cls.KIND == "request"
        if self._is_bounded:
            self._line(f"room = {ELEMENTS_MAX}")
        self._struct(cls, "m0")
        body = "\n".join(self._lines)
        self.text = (
            "def decode(view, at):\n"
            "    size = len(view)\n"
            "    try:\n"
            f"{body}\n"
            "        return m0, at\n"
            "    except UNPACK_FAILS as error:\n"
            f'        raise CodecError(f"{cls.__name__} v{version}: {{error}}") from None\n'
        )

    def _line(self, text: str) -> None:
        self._lines.append("    " * self._indent + text)

    def _block(self, head: str, body: Callable[[], None]) -> None:
        self._line(head)
        self._indent += 1
        body()
        self._indent -= 1

    def _read_run(self) -> None:
        """Read all fixed fields that have piled up, with one call."""
        run, self._run = self._run, []
        letters = "".join(letter for _, letter in run)
        if letters == "B":  # a lone length byte: an index is cheaper than a call
            self._line(f"{run[0][0]} = view[at]")
            self._line("at += 1")
        elif run:
            unpacker = struct.Struct(f">{letters}")
            name = f"read_{letters.replace('?', 't')}"  # a letter that a name can have
            self.names[name] = unpacker.unpack_from
            targets = ", ".join(target for target, _ in run)
            self._line(f"{targets}{',' if len(run) == 1 else ''} = {name}(view, at)")
            self._line(f"at += {unpacker.size}")

    def _struct(self, cls: type[Struct], var: str) -> None:
        """Lines that make `var`, an instance of `cls`, of the bytes at `at`."""
        self._depth += 1
        self.names[cls.__name__] = cls
        self._line(f"{var} = new({cls.__name__})")
        tagged = []
        for field in cls.FIELDS:
            if field.is_in(self.version) and field.tag is None:
                self._field(field, f"{var}.{field.name}", f"{cls.__name__}.{field.name}")
                continue
            self._default(cls, field, var)
            if field.is_in(self.version):
                tagged.append(field)
        if self.flexible:
            self._run.append(("n", "B"))
            self._read_run()
            if tagged:
                self._block("if n:", lambda: self._tags(cls, tagged, var))
            else:
                self._block("if n:", lambda: self._line("at = skip_tags(view, at - 1)"))
        else:
            self._read_run()
        self._depth -= 1

    def _default(self, cls: type[Struct], field: Field, var: str) -> None:
        if field.is_array and field.default is not None:
            self._line(f"{var}.{field.name} = []")
        elif field.kind == "struct" and field.default is not None:
            name = f"default_{cls.__name__}_{field.name}"
            self.names[name] = field.default
            self._line(f"{var}.{field.name} = {name}")
        else:
            self._line(f"{var}.{field.name} = {field.default!r}")

    def _tags(self, cls: type[Struct], tagged: list[Field], var: str) -> None:
        """Lines that read tagged fields, known ones and others; their count is not yet checked."""
        depth = self._depth
        tag, stop = f"tag{depth}", f"stop{depth}"

        def value(field: Field) -> None:
            what = f"{cls.__name__}.{field.name}"
            self._field(field, f"{var}.{field.name}", what)
            self._read_run()
            self._line(f"if at != {stop}:")
            self._line(f"    raise bad_tag_size({what!r}, at - {stop})")

        def each() -> None:
            self._line(f"{tag}, at, {stop} = next_tag(view, at, {tag})")
            word = "if"
            for field in sorted(tagged, key=lambda field: field.tag or 0):
                self._block(f"{word} {tag} == {field.tag}:", partial(value, field))
                word = "elif"
            self._block("else:", lambda: self._line(f"at = {stop}"))

        self._line("n, at = tags_count(view, at - 1)")
        self._line(f"{tag} = -1")
        self._block("for _ in range(n):", each)

    def _field(self, field: Field, target: str, what: str) -> None:
        if field.is_array:
            self._array(field, target, what)
        elif field.kind in FIXED:
            self._run.append((target, FIXED[field.kind]))
        elif field.kind == "struct":
            assert field.struct is not None
            inner, of = f"m{self._depth + 1}", field.struct
            if field.is_nullable(self.version):
                self._run.append(("n", "b"))
                self._read_run()
                self._line(f"if n < {0 if field.tag is None else 1}:")
                self._line(f"    {target} = None")
                self._block("else:", lambda: self._struct_into(of, inner, target))
            else:
                self._struct_into(of, inner, target)
        else:
            self._sized(field.kind, target, what, field.is_nullable(self.version))

    def _struct_into(self, cls: type[Struct], var: str, target: str) -> None:
        self._struct(cls, var)
        self._line(f"{target} = {var}")

    def _length(self, letter: str, *, often_long: bool = False) -> None:
        """Lines that leave the next length in `n`: -1 is null in both forms."""
        self._run.append(("n", "B" if self.flexible else letter))
        self._read_run()
        if not self.flexible:
            return
        if often_long:  # of two bytes most of the time: as `read_uvarint`, without the call
            self._line("if n > 127:")
            self._line("    if (more := view[at]) < 128:")
            self._line("        n += (more << 7) - 128")
            self._line("        at += 1")
            self._line("    else:")
            self._line("        n, at = read_uvarint(view, at - 1)")
        else:
            self._line("if n > 127:")
            self._line("    n, at = read_uvarint(view, at - 1)")

    def _sized(self, kind: str, target: str, what: str, nullable: bool) -> None:
        """Lines for a string, bytes or records: the value is a part of the view, then converted."""
        self._length("h" if kind == "string" else "i", often_long=kind != "string")
        length = "n - 1" if self.flexible else "n"
        null = "n == 0" if self.flexible else "n == -1"
        negative = "n == 0" if self.flexible else "n < 0"
        compact_string = self.flexible and kind == "string"
        long = f" or n > {primitives.STRING_BYTES_MAX + 1}" if compact_string else ""

        def value() -> None:
            self._line(f"end = at + {length}")
            refused = "" if nullable and self.flexible else f"{negative} or "
            self._line(f"if {refused}end > size{long}:")
            self._line(f"    raise bad_length({what!r}, {length}, size - at)")
            convert = {"string": ".tobytes().decode()", "bytes": ".tobytes()", "records": ""}[kind]
            self._line(f"{target} = view[at:end]{convert}")
            self._line("at = end")

        if nullable:
            self._line(f"if {null}:")
            self._line(f"    {target} = None")
            self._block("else:", value)
        else:
            value()

    def _array(self, field: Field, target: str, what: str) -> None:
        self._length("i")
        if self.flexible:
            self._line("n -= 1")
        if field.kind == "struct":
            assert field.struct is not None
            each = size_min(field.struct, self.version, self.flexible) or 1
        elif field.kind in FIXED:
            each = struct.calcsize(f">{FIXED[field.kind]}")
        else:
            each = 1 if self.flexible else 2

        def value() -> None:
            many = "n" if each == 1 else f"n * {each}"
            full = " or (room := room - n) < 0" if self._is_bounded else ""
            self._line(f"if n < 0 or {many} > size - at{full}:")
            self._line(f"    raise bad_count({what!r}, n, size - at)")
            self._elements(field, target, what, each)

        if field.is_nullable(self.version):
            self._line("if n == -1:")
            self._line(f"    {target} = None")
            self._block("else:", value)
        else:
            value()

    def _elements(self, field: Field, target: str, what: str, each: int) -> None:
        """Lines that read `n` elements, a count which has been checked."""
        if field.kind in FIXED and field.kind != "uuid":
            letter = FIXED[field.kind]
            self._line(f'{target} = list(unpack_from(f">{{n}}{letter}", view, at))')
            self._line("at += n" if each == 1 else f"at += n * {each}")
            return
        items = f"items{self._depth}"
        self._line(f"{target} = {items} = []")

        def one() -> None:
            if field.kind == "struct":
                assert field.struct is not None
                inner = f"m{self._depth + 1}"
                self._struct(field.struct, inner)
            else:
                inner = "item"
                if field.kind == "uuid":
                    self._run.append((inner, FIXED["uuid"]))
                    self._read_run()
                else:
                    self._sized(field.kind, inner, what, nullable=False)
            self._line(f"{items}.append({inner})")

        self._block("for _ in range(n):", one)
