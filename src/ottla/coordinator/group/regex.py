"""Which topics a regular expression names, in time that grows with their names and nothing else.

Owns the engine: Thompson's, which follows all ways at once, so that no expression makes it go
back (H110); the sets of places it can be at are kept, and become a table as names go by. And owns
the resolution of a group's expressions over all topics, in slices that keep nobody waiting. Why
not a package: docs/design/dependencies.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from ottla.coordinator.group.regex_syntax import WORD, Node, RegexError, parse

__all__ = ["Regex", "RegexError", "Resolution"]

PROGRAM_MAX: Final = 10_000
"""Places in an expression, counted repetitions written out; more is refused, as RE2 refuses what
takes more than its memory."""
KEPT_MAX: Final = 50_000
"""Places in all the states that are kept for one expression; past that the table is begun anew."""
TEXT_MAX: Final = 4096
"""Characters of an expression; RE2 has a limit of memory instead."""
COMPILE_STEPS: Final = 100
"""What a character costs to compile, in steps of matching."""
SLICE: Final = 20_000
"""Steps that a resolution takes at a time: a few milliseconds."""

_SET, _SPLIT, _AT, _MATCH = range(4)
_BEGIN, _WORD, _OTHER = range(3)
"""What lies before a place: nothing, a word's character, or another."""


class Regex:
    """A compiled expression. Raises RegexError where the text is none."""

    __slots__ = ("_kept", "_program", "_start", "_states", "steps", "text")

    def __init__(self, text: str) -> None:
        if len(text) > TEXT_MAX:
            raise RegexError("pattern too large")
        self.text = text
        self._kept = 0
        self._program = _Compiler().program(parse(text))
        self._start = (frozenset({0}), _BEGIN)
        self._states: dict[tuple[frozenset[int], int], dict[int, Any]] = {}
        self.steps = 0
        """What was done so far; a measure of time."""

    def matches(self, name: str) -> bool:
        """Whether the expression describes all of the name."""
        state = self._start
        for character in name:
            code = ord(character)
            table = self._states.get(state)
            if table is None:
                table = self._keep(state)
            following = table.get(code)
            if following is None:
                following = table[code] = self._step(state, code)
            self.steps += 1
            state = following
            if not state[0]:
                return False
        table = self._states.get(state)
        if table is None:
            table = self._keep(state)
        accepted: bool | None = table.get(-1)
        if accepted is None:
            accepted = table[-1] = len(self._program) - 1 in self._places(*state, -1)
        return accepted

    def _keep(self, state: tuple[frozenset[int], int]) -> dict[int, Any]:
        self._kept += len(state[0]) + 64  # a state has a table of its own, however few its places
        if self._kept > KEPT_MAX:
            self._states.clear()
            self._kept = 0
        table: dict[int, Any] = {}
        self._states[state] = table
        return table

    def _step(self, state: tuple[frozenset[int], int], code: int) -> tuple[frozenset[int], int]:
        bit = 1 << code if code < 128 else 0
        places = self._places(*state, code)
        program = self._program
        reached = {at + 1 for at in places if program[at][0] == _SET and program[at][1] & bit}
        return frozenset(reached), _WORD if bit & WORD else _OTHER

    def _places(self, starts: frozenset[int], before: int, code: int) -> set[int]:
        """All that can be reached from there without a character. `code` is the next, -1: none."""
        word_behind = 0 <= code < 128 and bool(1 << code & WORD)
        holds = {
            "begin": before == _BEGIN,
            "end": code < 0,
            "word": (before == _WORD) != word_behind,
            "not word": (before == _WORD) == word_behind,
        }
        seen: set[int] = set()
        stack = list(starts)
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            kind, operand = self._program[at]
            if kind == _SPLIT:
                stack.extend(operand)
            elif kind == _AT and holds[operand]:
                stack.append(at + 1)
        self.steps += len(seen)
        return seen


class _Compiler:
    """Writes a tree out as a program: each place goes on to the next, but for splits."""

    def __init__(self) -> None:
        self._program: list[tuple[int, Any]] = []

    def program(self, tree: Node) -> list[tuple[int, Any]]:
        self._emit(tree)
        self._add(_MATCH, None)
        return self._program

    def _add(self, kind: int, operand: Any) -> int:
        if len(self._program) >= PROGRAM_MAX:
            raise RegexError("pattern too large")
        self._program.append((kind, operand))
        return len(self._program) - 1

    def _emit(self, node: Node) -> None:
        kind, rest = node[0], node[1:]
        if kind == "set":
            self._add(_SET, rest[0])
        elif kind == "at":
            self._add(_AT, rest[0])
        elif kind == "seq":
            for each in _nodes(rest[0]):
                self._emit(each)
        elif kind == "alt":
            self._either(_nodes(rest[0]))
        else:
            self._repeat(*rest)

    def _either(self, branches: list[Node]) -> None:
        jumps = []
        for branch in branches[:-1]:
            split = self._add(_SPLIT, ())
            self._emit(branch)
            jumps.append(self._add(_SPLIT, ()))
            self._program[split] = (_SPLIT, (split + 1, len(self._program)))
        self._emit(branches[-1])
        for jump in jumps:
            self._program[jump] = (_SPLIT, (len(self._program),))

    def _repeat(self, node: Any, low: Any, high: Any) -> None:
        for _ in range(low):
            self._emit(node)
        if high < 0:
            split = self._add(_SPLIT, ())
            self._emit(node)
            self._add(_SPLIT, (split,))
            self._program[split] = (_SPLIT, (split + 1, len(self._program)))
            return
        splits = []
        for _ in range(high - low):
            splits.append(self._add(_SPLIT, ()))
            self._emit(node)
        for split in splits:
            self._program[split] = (_SPLIT, (split + 1, len(self._program)))


def _nodes(value: Any) -> list[Node]:
    assert isinstance(value, list)
    return value


class Resolution:
    """The topics that each of some expressions names. `topics` has them once `step` said True.

    `version` is that of the metadata which the names are from. One expression after the other, so
    that only one has its table in memory.
    """

    def __init__(self, texts: Iterable[str], names: Iterable[str], version: int) -> None:
        self.version = version
        self.topics: dict[str, set[str]] = {text: set() for text in texts}
        self._texts = sorted(self.topics)
        self._names = list(names)
        self._regex: Regex | None = None
        self._at = 0

    def step(self) -> bool:
        """Go on for a slice. True: it is done."""
        left = SLICE
        while self._regex is not None or self._texts:
            if self._regex is None:
                text = self._texts.pop()
                left -= COMPILE_STEPS * len(text)
                # One from another coordinator's log, which took it, names nothing here.
                with suppress(RegexError):
                    self._regex, self._at = Regex(text), 0
            elif self._at == len(self._names):
                self._regex = None
            else:
                left -= self._look(self._regex)
            if left <= 0:
                return self._regex is None and not self._texts
        return True

    def _look(self, regex: Regex) -> int:
        """Hold one name against the expression; how many steps that took."""
        before, name = regex.steps, self._names[self._at]
        if regex.matches(name):
            self.topics[regex.text].add(name)
        self._at += 1
        return regex.steps - before + 1


def names_bytes(names: Iterable[str]) -> int:
    """What names of topics take in a record."""
    return sum(len(name) + 2 for name in names)


def fitting(names: set[str], bytes_max: int) -> frozenset[str]:
    """The first of the names, in their order, that are no more than that together."""
    if names_bytes(names) <= bytes_max:
        return frozenset(names)
    kept = []
    for name in sorted(names):
        bytes_max -= len(name) + 2
        if bytes_max < 0:
            break
        kept.append(name)
    return frozenset(kept)
