"""Writes the Python source of an encoder: one straight line for one message in one version.

Owns how values become bytes. Must not run what it writes (`codec.py`), and must not look inside
records: they are put between the other bytes as they are.

Neighbouring fields of fixed size, the length of what follows them, and a short array of numbers
at their end are one `pack`. What a reader of the source meets: `m0` the message, `m1` … the
structs inside it, `w` appends a part, `n` the length about to be written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ottla.core.model import FileSlice
from ottla.protocol import primitives
from ottla.protocol.schema import FIXED, Field, Message, Struct

_ARRAY_SHORT: Final = 16  # arrays of numbers below this length have a packer of their own

_PACK_FAILS: Final = (struct.error, AttributeError, TypeError, ValueError, OverflowError)
"""What a value of the wrong type or size raises in an encoder (a lone surrogate: ValueError)."""

_PACKERS: dict[str, tuple[Callable[..., bytes], ...]] = {}

_BYTES: Final = tuple(bytes((n,)) for n in range(128))
"""A lone length byte: an index costs a third of a call to pack it."""


def _packers(prefix: str, letter: str) -> tuple[Callable[..., bytes], ...]:
    """Packers of `prefix` and as many `letter`s as their index says; shared, for they are many."""
    key = prefix + letter
    if key not in _PACKERS:
        made = [struct.Struct(f">{prefix}{n}{letter}").pack for n in range(_ARRAY_SHORT)]
        _PACKERS[key] = tuple(made)
    return _PACKERS[key]


def _pack_many(letter: str, values: list[Any]) -> bytes:
    """The bytes of a longer array of numbers."""
    return struct.pack(f">{len(values)}{letter}", *values)


def _too_long(what: str, length: int) -> primitives.CodecError:
    return primitives.CodecError(f"{what}: a string of {length} bytes is too long")


def _name_of(letters: str) -> str:
    return letters.replace("?", "t")  # a letter that a name can have


class EncoderSource:
    """Collects the lines of one encoder, and the names that they use."""

    def __init__(self, cls: type[Message], version: int) -> None:
        self.version = version
        self.flexible = cls.FLEXIBLE is not None and version >= cls.FLEXIBLE
        self.names: dict[str, Any] = {
            "PACK_FAILS": _PACK_FAILS,
            "CodecError": primitives.CodecError,
            "FileSlice": FileSlice,
            "uvarint": primitives.write_uvarint,
            "cut": primitives.cut,
            "pack_many": _pack_many,
            "too_long": _too_long,
            "byte": _BYTES,
        }
        self._lines: list[str] = []
        self._indent = 2
        self._run: list[
            tuple[str, str]
        ] = []  # (letter, expression) of fixed fields not yet written
        self._depth = -1
        self._sink = "w"
        self._has_records = False
        self._struct(cls, "m0")
        self._write_run()
        body = "\n".join(self._lines)
        slices = "        slices = []\n" if self._has_records else ""
        cut = "cut(out, slices) if slices else " if self._has_records else ""
        self.text = (
            "def encode(m0):\n"
            "    out = []\n"
            "    w = out.append\n"
            "    try:\n"
            f"{slices}{body}\n"
            f'        return {cut}[b"".join(out)]\n'
            "    except PACK_FAILS as error:\n"
            f'        raise CodecError(f"{cls.__name__} v{version}: {{error}}") from error\n'
        )

    def _line(self, text: str) -> None:
        self._lines.append("    " * self._indent + text)

    def _block(self, head: str, body: Callable[[], None]) -> None:
        self._line(head)
        self._indent += 1
        body()
        self._indent -= 1

    def _packed(self, run: list[tuple[str, str]]) -> str:
        """An expression for the bytes of fixed fields."""
        letters = "".join(letter for letter, _ in run)
        if not letters.strip("x"):
            return repr(bytes(len(letters)))
        if letters == "B":  # no field is of that kind: a length or a count below 128
            return f"byte[{run[0][1]}]"
        name = f"pack_{_name_of(letters)}"
        self.names[name] = struct.Struct(f">{letters}").pack
        return f"{name}({', '.join(expression for letter, expression in run if letter != 'x')})"

    def _write_run(self) -> None:
        run, self._run = self._run, []
        if run:
            self._line(f"{self._sink}({self._packed(run)})")

    def _write_length(self, letter: str, slow: str = "") -> None:
        """Lines that write `n`, in compact form a length plus one, with what comes before it.

        `slow` is a line for lengths that take more than one byte, such as a check.
        """
        before, self._run = self._run, []
        if not self.flexible:
            self._line(f"{self._sink}({self._packed([*before, (letter, 'n')])})")
            return
        self._line("if n < 128:")
        self._line(f"    {self._sink}({self._packed([*before, ('B', 'n')])})")
        self._line("else:")
        if slow:
            self._line(f"    {slow}")
        if before:
            self._line(f"    {self._sink}({self._packed(before)})")
        self._line(f"    {self._sink}(uvarint(n))")

    def _struct(self, cls: type[Struct], var: str) -> None:
        """Lines that write the instance `var` of `cls`; its last fields may stay in the run."""
        self._depth += 1
        tagged = []
        for field in cls.FIELDS:
            if not field.is_in(self.version):
                continue
            if field.tag is not None:
                tagged.append(field)
            else:
                self._field(field, f"{var}.{field.name}", f"{cls.__name__}.{field.name}")
        if tagged:
            self._tags(cls, tagged, var)
        elif self.flexible:
            self._run.append(("x", ""))
        self._depth -= 1

    def _differs(self, cls: type[Struct], field: Field, value: str) -> str:
        """An expression: whether a tagged field has another value than its default."""
        if field.is_array and field.default is not None:
            return f"{value} != []"
        if field.kind == "struct" and field.is_nullable(self.version):
            return "True"  # to Kafka one that is left out is an empty one
        if field.default is None:
            return f"{value} is not None"
        if field.kind != "struct":
            return f"{value} != {field.default!r}"
        name = f"default_{cls.__name__}_{field.name}"
        self.names[name] = field.default
        return f"({value} is not {name} and {value} != {name})"

    def _tags(self, cls: type[Struct], tagged: list[Field], var: str) -> None:
        """Lines that write the tagged fields that are not their default, in the order of tags."""
        tagged = sorted(tagged, key=lambda field: field.tag or 0)
        present = [f"has{self._depth}_{field.tag}" for field in tagged]
        for name, field in zip(present, tagged, strict=True):
            self._line(f"{name} = {self._differs(cls, field, f'{var}.{field.name}')}")
        self._run.append(("B", "n"))
        self._line(f"n = {' + '.join(present)}")
        self._write_run()

        def each() -> None:
            for name, field in zip(present, tagged, strict=True):
                self._block(f"if {name}:", partial(self._tag, cls, field, var))

        self._block("if n:", each)

    def _tag(self, cls: type[Struct], field: Field, var: str) -> None:
        outer, parts = self._sink, f"parts{self._depth}"
        self._sink = f"w{self._depth}"
        self._line(f"{parts} = []")
        self._line(f"{self._sink} = {parts}.append")
        self._field(field, f"{var}.{field.name}", f"{cls.__name__}.{field.name}")
        self._write_run()
        self._sink = outer
        self._line(f'value = b"".join({parts})')
        self._line(f"{outer}({primitives.write_uvarint(field.tag or 0)!r})")
        self._line(f"{outer}(uvarint(len(value)))")
        self._line(f"{outer}(value)")

    def _field(self, field: Field, value: str, what: str) -> None:
        if field.is_array:
            self._array(field, value, what)
        elif field.kind in FIXED:
            self._run.append((FIXED[field.kind], value))
        elif field.kind == "struct":
            assert field.struct is not None
            inner, of = f"m{self._depth + 1}", field.struct
            if field.is_nullable(self.version):
                self._nullable_struct(of, inner, value, -1 if field.tag is None else 0)
            else:
                self._line(f"{inner} = {value}")
                self._struct(of, inner)
                self._write_run()  # the run names `inner`, which the next field may take
        else:
            self._sized(field, value, what, field.is_nullable(self.version))

    def _nullable_struct(self, of: type[Struct], inner: str, value: str, none: int) -> None:
        before, self._run = self._run, []
        self._line(f"{inner} = {value}")

        def null() -> None:
            self._line(f"{self._sink}({self._packed([*before, ('b', str(none))])})")

        def present() -> None:
            self._run = [*before, ("b", "1")]
            self._struct(of, inner)
            self._write_run()

        self._block(f"if {inner} is None:", null)
        self._block("else:", present)

    def _sized(self, field: Field, value: str, what: str, nullable: bool) -> None:
        """Lines for a string, bytes or records."""
        letter = "h" if field.kind == "string" else "i"
        self._line(f"v = {value}")
        if not nullable:
            self._content(field, letter, what)
            return
        before = self._run
        null = ("x", "") if self.flexible else (letter, "-1")
        self._line("if v is None:")
        self._line(f"    {self._sink}({self._packed([*before, null])})")
        self._block("else:", lambda: self._content(field, letter, what))

    def _content(self, field: Field, letter: str, what: str) -> None:
        """Lines for the length and the bytes of `v`, which isn't None."""
        slow = ""
        if field.kind == "string":
            self._line("v = v.encode()")
            slow = f"if n > {primitives.STRING_BYTES_MAX + 1}: raise too_long({what!r}, n - 1)"
        self._line(f"n = len(v){' + 1' if self.flexible else ''}")
        self._write_length(letter, slow)
        if field.kind == "records":
            self._has_records = True
            self._line("if type(v) is FileSlice:")
            self._line("    slices.append(len(out))")
        self._line(f"{self._sink}(v)")

    def _array(self, field: Field, value: str, what: str) -> None:
        items = f"items{self._depth}"
        self._line(f"{items} = {value}")
        nullable = field.is_nullable(self.version)
        size = f"len({items})"
        if field.kind in FIXED and field.kind != "uuid" and not nullable:
            self._numbers(FIXED[field.kind], items, size)
            return
        if nullable:
            null = "0" if self.flexible else "-1"
            plus = " + 1" if self.flexible else ""
            self._line(f"n = {null} if {items} is None else {size}{plus}")
        else:
            self._line(f"n = {size}{' + 1' if self.flexible else ''}")
        self._write_length("i")
        if nullable:
            self._block(f"if {items}:", lambda: self._elements(field, items, what))
        else:
            self._elements(field, items, what)

    def _numbers(self, letter: str, items: str, size: str) -> None:
        """Lines for an array of numbers, packed with what comes before it while it is short."""
        before, self._run = self._run, []
        count = "B" if self.flexible else "i"
        prefix = "".join(each for each, _ in before) + count
        values = [expression for each, expression in before if each != "x"]
        name = f"packers_{_name_of(prefix)}_{letter}"
        self.names[name] = _packers(prefix, letter)
        n = "n + 1" if self.flexible else "n"
        self._line(f"n = {size}")
        self._line(f"if n < {_ARRAY_SHORT}:")
        self._line(f"    {self._sink}({name}[n]({', '.join([*values, n, f'*{items}'])}))")

        def long() -> None:
            self._run = before
            if self.flexible:
                self._line("n += 1")
            self._write_length("i")
            self._line(f'{self._sink}(pack_many("{letter}", {items}))')

        self._block("else:", long)

    def _elements(self, field: Field, items: str, what: str) -> None:
        """Lines that write each element, the count being written."""
        if field.kind in FIXED and field.kind != "uuid":
            self._line(f'{self._sink}(pack_many("{FIXED[field.kind]}", {items}))')
            return
        inner = f"m{self._depth + 1}"

        def each() -> None:
            if field.kind == "struct":
                assert field.struct is not None
                self._struct(field.struct, inner)
            elif field.kind == "uuid":
                self._run.append((FIXED["uuid"], inner))
            else:
                self._sized(field, inner, what, nullable=False)
            self._write_run()

        self._block(f"for {inner} in {items}:", each)
