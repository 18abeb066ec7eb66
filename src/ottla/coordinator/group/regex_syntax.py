"""The syntax of RE2, as far as names of topics go: text in, a tree out.

Owns parsing. Topic names are ASCII, so a set of characters is an int with a bit for each of 128;
a character beyond is a set that nothing is in. What needs backtracking (back references, look
around, possessive operators) isn't in the language, and is refused as RE2 and Apache Kafka's RE2J
do. Must not match anything: that is `regex.py`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, TypeAlias

Node: TypeAlias = tuple[object, ...]
"""("set", mask) · ("at", what) · ("seq", nodes) · ("alt", nodes) · ("repeat", node, min, max).
A `max` of -1 means no limit; `what` is begin, end, word or not word."""

REPEAT_MAX: Final = 1000
DEPTH_MAX: Final = 100
ALL: Final = (1 << 128) - 1


class RegexError(Exception):
    """The text is not a regular expression. Says why, in RE2's words where there are any."""


def _mask(characters: str) -> int:
    mask = 0
    for character in characters:
        if ord(character) < 128:
            mask |= 1 << ord(character)
    return mask


def _span(first: int, last: int) -> int:
    return sum(1 << code for code in range(first, min(last, 127) + 1))


_LOWER, _UPPER, _DIGIT = _span(97, 122), _span(65, 90), _span(48, 57)
WORD: Final = _LOWER | _UPPER | _DIGIT | _mask("_")
_PERL: Final = {"d": _DIGIT, "w": WORD, "s": _mask("\t\n\f\r ")}
_POSIX: Final = {
    "alnum": _LOWER | _UPPER | _DIGIT,
    "alpha": _LOWER | _UPPER,
    "ascii": ALL,
    "blank": _mask("\t "),
    "cntrl": _span(0, 31) | _span(127, 127),
    "digit": _DIGIT,
    "graph": _span(33, 126),
    "lower": _LOWER,
    "print": _span(32, 126),
    "punct": _span(33, 47) | _span(58, 64) | _span(91, 96) | _span(123, 126),
    "space": _mask("\t\n\v\f\r "),
    "upper": _UPPER,
    "word": WORD,
    "xdigit": _DIGIT | _span(65, 70) | _span(97, 102),
}
_GENERAL: Final = {
    "C": "cfos",
    "L": "lmotu",
    "M": "cen",
    "N": "dlo",
    "P": "cdefios",
    "S": "ckmo",
    "Z": "lps",
}
_CATEGORIES: Final = {*_GENERAL, *(major + minor for major, of in _GENERAL.items() for minor in of)}
_SCRIPTS: Final = {"Any": ALL, "Latin": _LOWER | _UPPER, "Common": ALL & ~(_LOWER | _UPPER)}
_ELSEWHERE: Final = frozenset(
    {"Arabic", "Armenian", "Cyrillic", "Devanagari", "Georgian", "Greek", "Han", "Hangul"}
    | {"Hebrew", "Hiragana", "Katakana", "Thai"}
)
"""Some scripts that no topic is written in."""
_ESCAPED: Final = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_AT: Final = {"A": "begin", "z": "end", "b": "word", "B": "not word"}
_REPEAT = re.compile(r"\{(\d{1,9})(?:(,)(\d{1,9})?)?\}")
_NAMED = re.compile(r"\?P?<([^>]*)>")
_FLAGS = re.compile(r"\?([imsU]*)(?:-([imsU]+))?([:)])")


def parse(text: str) -> Node:
    """The tree. Raises RegexError."""
    parser = _Parser(text)
    tree = parser.alternatives(0)
    if parser.at < len(text):
        raise RegexError("unexpected )")
    return tree


class _Parser:
    """Recursive descent; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.names: set[str] = set()
        self.ignore_case = False
        self.dot_all = False

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def alternatives(self, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise RegexError("expression nests too deeply")
        branches = [self._sequence(depth)]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._sequence(depth))
        return branches[0] if len(branches) == 1 else ("alt", branches)

    def _sequence(self, depth: int) -> Node:
        nodes: list[Node] = []
        while (character := self._peek()) and character not in "|)":
            if character == "(":
                node = self._group(depth)
            elif character in "*+?" or _REPEAT.match(self.text, self.at):
                raise RegexError("no argument for repetition operator")
            elif self.text.startswith(r"\Q", self.at):
                nodes += self._quoted()
                if not nodes:
                    continue
                node = nodes.pop()  # an operator behind holds for the last of them
            else:
                node = self._atom(character)
            nodes.append(self._repeated(node) if node is not None else ("seq", []))
        return nodes[0] if len(nodes) == 1 else ("seq", nodes)

    def _quoted(self) -> list[Node]:
        end = self.text.find(r"\E", self.at + 2)
        quoted = self.text[self.at + 2 : end if end >= 0 else len(self.text)]
        self.at = end + 2 if end >= 0 else len(self.text)
        return [("set", self._folded(_mask(each))) for each in quoted]

    def _repeated(self, node: Node) -> Node:
        twice = False
        while True:
            character, found = self._peek(), _REPEAT.match(self.text, self.at)
            if found:
                low = int(found[1])
                high = low if found[2] is None else int(found[3]) if found[3] else -1
                self.at = found.end()
                if max(low, high) > REPEAT_MAX or 0 <= high < low:
                    raise RegexError(f"invalid repetition size: {found[0]}")
            elif character and character in "*+?":
                low, high = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}[character]
                self.at += 1
            else:
                return node
            if twice:
                raise RegexError("bad repetition operator")
            twice = True
            if self._peek() == "?":  # lazy: the same names match
                self.at += 1
            node = ("repeat", node, low, high)

    def _group(self, depth: int) -> Node | None:
        """None where it only sets flags."""
        self.at += 1
        flags = self.ignore_case, self.dot_all
        if self._peek() == "?":
            named, flagged = _NAMED.match(self.text, self.at), _FLAGS.match(self.text, self.at)
            if named:
                self._name(named[1])
                self.at = named.end()
            elif flagged and (flagged[1] or flagged[2] or flagged[3] == ":"):
                self._set_flags(flagged[1], True)
                self._set_flags(flagged[2] or "", False)
                self.at = flagged.end()
                if flagged[3] == ")":
                    return None
            else:
                raise RegexError("invalid perl operator")
        inside = self.alternatives(depth + 1)
        if self._peek() != ")":
            raise RegexError("missing )")
        self.at += 1
        self.ignore_case, self.dot_all = flags
        return inside

    def _name(self, name: str) -> None:
        if not re.fullmatch(r"\w+", name) or name in self.names:
            raise RegexError(f"invalid named capture group: {name}")
        self.names.add(name)

    def _set_flags(self, flags: str, to: bool) -> None:
        if "i" in flags:
            self.ignore_case = to
        if "s" in flags:
            self.dot_all = to

    def _folded(self, mask: int) -> int:
        if self.ignore_case:
            mask |= (mask & _LOWER) >> 32 | (mask & _UPPER) << 32
        return mask

    def _atom(self, character: str) -> Node:
        self.at += 1
        match character:
            case "^":
                return ("at", "begin")  # names have no second line: (?m) changes nothing
            case "$":
                return ("at", "end")
            case ".":
                return ("set", ALL if self.dot_all else ALL & ~(1 << 10))
            case "[":
                return ("set", self._class())
            case "\\":
                return self._escape()
        return ("set", self._folded(_mask(character)))

    def _escape(self) -> Node:
        character = self._peek()
        if character in _AT and character:
            self.at += 1
            return ("at", _AT[character])
        mask = self._shorthand()
        if mask is None:
            mask = self._one(self._code())
        return ("set", self._folded(mask))

    def _one(self, code: int) -> int:
        return 1 << code if code < 128 else 0

    def _shorthand(self) -> int | None:
        r"""What `\d`, `\pL` and the like stand for, behind the backslash; None if it is none."""
        character = self._peek()
        if character.lower() in _PERL and character:
            self.at += 1
            mask = _PERL[character.lower()]
            return ALL & ~mask if character.isupper() else mask
        if character not in ("p", "P"):
            return None
        found = re.compile(r"[pP](?:\{(\^?)(\w+)\}|(\w))").match(self.text, self.at)
        if not found:
            raise RegexError("invalid character class range")
        self.at = found.end()
        mask = _unicode(found[2] or found[3])
        negated = (character == "P") != bool(found[1])
        return ALL & ~mask if negated else mask

    def _code(self) -> int:
        """The character that an escape stands for, behind the backslash."""
        character = self._peek()
        self.at += 1
        if not character:
            raise RegexError(r"trailing \ at end of expression")
        if character in _ESCAPED:
            return _ESCAPED[character]
        octal = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}").match(self.text, self.at - 1)
        if octal:
            self.at = octal.end()
            return int(octal[0], 8)
        if character == "x":
            found = re.compile(r"\{([0-9a-fA-F]{1,8})\}|([0-9a-fA-F]{2})").match(self.text, self.at)
            code = int(found[1] or found[2], 16) if found else -1
            if found and code <= 0x10FFFF:
                self.at = found.end()
                return code
        elif ord(character) < 128 and not character.isalnum():
            return ord(character)
        raise RegexError(f"invalid escape sequence: \\{character}")

    def _class(self) -> int:
        negated = self._peek() == "^"
        self.at += negated
        mask, first = 0, True
        while first or self._peek() != "]":
            if not self._peek():
                raise RegexError("missing ]")
            first = False
            mask |= self._class_item()
        self.at += 1
        mask = self._folded(mask)
        return ALL & ~mask if negated else mask

    def _class_item(self) -> int:
        named = re.compile(r"\[:(\^?)(\w+):\]").match(self.text, self.at)
        if named:
            if named[2] not in _POSIX:
                raise RegexError(f"invalid character class range: {named[0]}")
            self.at = named.end()
            return ALL & ~_POSIX[named[2]] if named[1] else _POSIX[named[2]]
        if self._peek() == "\\":
            self.at += 1
            mask = self._shorthand()
            if mask is not None:
                return mask
            self.at -= 1
        low = high = self._class_character()
        if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
            self.at += 1
            high = self._class_character()
            if high < low:
                raise RegexError("invalid character class range")
        return _span(low, high)

    def _class_character(self) -> int:
        character = self._peek()
        if not character:
            raise RegexError("missing ]")
        self.at += 1
        return self._code() if character == "\\" else ord(character)


def _unicode(name: str) -> int:
    if name in _SCRIPTS or name in _ELSEWHERE:
        return _SCRIPTS.get(name, 0)
    if name not in _CATEGORIES:
        raise RegexError(f"invalid character class range: {name}")
    return sum(1 << code for code in range(128) if unicodedata.category(chr(code)).startswith(name))
