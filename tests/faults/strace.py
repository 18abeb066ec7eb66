"""Reads what strace wrote: system calls in the order in which they began and returned.

Owns the parsing of `strace -f -yy -xx -s N`. Must not know Kafka.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# pid, then a whole call, a call that was interrupted, or the rest of one.
_WHOLE = re.compile(r"^(\d+) +[\d.]+ (\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?")
_BEGUN = re.compile(r"^(\d+) +[\d.]+ (\w+)\((.*?) *<unfinished \.\.\.>")
_ENDED = re.compile(r"^(\d+) +[\d.]+ <\.\.\. (\w+) resumed>.*\) += (-?\d+)(?:<(.*)>)?")
_FILE = re.compile(r"(?:^|[\[{, ])(\d+)<(.*?)>(\(deleted\))?(?=[,)]|$)")
_NAME = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:\\x[0-9a-f]{2})*)"')
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Call:
    """One system call. `begun` and `returned` are places in the order of all events."""

    name: str
    arguments: str
    begun: int
    returned: int = -1
    result: int = -1
    opened: str = ""

    @property
    def path(self) -> str:
        """The file or socket that the call is about: what it opened, else its first descriptor."""
        if self.opened:
            return _text(self.opened)
        found = _FILE.search(self.arguments)
        return _text(found[2]) if found and not found[3] else ""

    def names(self) -> list[str]:
        """The paths in its arguments, those beside a directory's descriptor joined to it."""
        return [
            text_of(name) if name.startswith("\\x2f") else f"{_text(folder)}/{text_of(name)}"
            for folder, name in _NAME.findall(self.arguments)
        ]

    def data(self) -> bytes:
        """The bytes in its arguments, of every buffer, cut to what the call took."""
        return b"".join(map(_bytes, _STRING.findall(self.arguments)))[: max(0, self.result)]


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _text(escaped: str) -> str:
    """strace -xx writes paths in hexadecimal too, but leaves sockets readable."""
    return re.sub(
        r"(?:\\x[0-9a-f]{2})+", lambda found: _bytes(found[0]).decode(errors="replace"), escaped
    )


def text_of(escaped: str) -> str:
    """A string of an argument, without its quotes."""
    return _bytes(escaped).decode(errors="replace")


def calls(file: Path) -> Iterator[Call]:
    """Every call that returned, in the order of returning."""
    open_calls: dict[str, Call] = {}
    for number, line in enumerate(file.read_text(errors="replace").splitlines()):
        if found := _WHOLE.match(line):
            yield Call(found[2], found[3], number, number, int(found[4]), found[5] or "")
        elif found := _BEGUN.match(line):
            open_calls[found[1]] = Call(found[2], found[3], number)
        elif (found := _ENDED.match(line)) and found[1] in open_calls:
            call = open_calls.pop(found[1])
            call.returned, call.result, call.opened = number, int(found[3]), found[4] or ""
            yield call
