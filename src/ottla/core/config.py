"""The mechanism of options: each is declared once, by Kafka's own name.

Owns Option and how text becomes a value; the declarations are in `options.py` and
`topic_options.py`. Must not read files or the command line (the cli does) and must not know who
uses an option.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

from ottla.core.value import Value

T = TypeVar("T", bool, int, float, str)
Scope = Literal["broker", "topic"]

INT_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1
"""The bounds of Kafka's INT and LONG."""

_TRUTH = {"true": True, "false": False}


class InvalidConfig(Exception):
    """A value that an option does not take. The text names the option and what it takes."""


class BrokerName(NamedTuple):
    """A broker option that sets a topic option's default; `factor` is its unit in the topic's."""

    name: str
    factor: int = 1


class Option(Value, Generic[T]):
    """One option.

    A topic option's broker-wide default is set by the first of `broker_names` that is given,
    as in Kafka (`log.retention.ms` before `log.retention.minutes` before `log.retention.hours`).
    `also` are values taken though they lie outside the bounds; with `many`, the value is a list
    of `one_of` separated by commas, which may be empty.
    """

    name: str
    default: T
    doc: str
    scope: Scope = "broker"
    live: bool = False
    at_least: float | None = None
    at_most: float | None = None
    also: tuple[int, ...] = ()
    one_of: tuple[str, ...] = ()
    many: bool = False
    broker_names: tuple[BrokerName, ...] = ()

    def parse(self, text: str, name: str | None = None) -> T:
        """The value that `text` names. Raises InvalidConfig, which calls the option `name`."""
        value = self._convert(text.strip(), name or self.name)
        fault = self._fault(value)
        if fault:
            raise InvalidConfig(f"{name or self.name} must be {fault}, not {text.strip()!r}")
        return cast(T, value)

    def _convert(self, text: str, name: str) -> bool | int | float | str:
        kind: type[Any] = type(self.default)
        try:
            if kind is bool:
                return _TRUTH[text.lower()]
            if kind is str:
                parts = text.split(",") if self.many else [text]
                return ",".join(part.strip() for part in parts)
            if not text.isascii() or "_" in text:
                raise ValueError  # int() would take it, but nobody means it
            return kind(text)  # type: ignore[no-any-return]  # int or float
        except (KeyError, ValueError):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise InvalidConfig(f"{name} takes {wanted}, not {text!r}") from None

    def _fault(self, value: bool | int | float | str) -> str:
        """What the value should have been, or nothing."""
        if isinstance(value, str):
            if not self.one_of:
                return ""
            parts = value.split(",") if self.many else [value]
            if all(part in self.one_of for part in parts) or (self.many and not value):
                return ""
            return f"{'some' if self.many else 'one'} of {', '.join(self.one_of)}"
        if value in self.also:
            return ""
        if math.isnan(value):
            return "a number"
        if self.at_least is not None and value < self.at_least:
            return f"at least {self.at_least}"
        if self.at_most is not None and value > self.at_most:
            return f"at most {self.at_most}"
        return ""


class Config:
    """The broker's values in force: what was given by name, else each option's default.

    `given` is what was given, as text; `ignored` lists given names that Kafka knows and that
    mean nothing here, for a line of warning.
    """

    __slots__ = ("_values", "given", "ignored")

    def __init__(
        self,
        options: Iterable[Option[Any]],
        given: Mapping[str, str],
        ignorable: frozenset[str] = frozenset(),
    ) -> None:
        """Parse every given value. Raises InvalidConfig for a bad value or an unknown name."""
        self.given = dict(given)
        self.ignored: list[str] = []
        self._values: dict[str, Any] = {}
        taken: set[str] = set()
        for option in options:
            for name, factor in option.broker_names or (BrokerName(option.name),):
                taken.add(name)
                if name not in given:
                    continue
                value = option.parse(given[name], name) if factor == 1 else None
                if value is None:
                    value = _in_unit(option, given[name], name, factor)
                self._values.setdefault(option.name, value)
        for name in given:
            if name in taken:
                continue
            if name not in ignorable:
                raise InvalidConfig(_unknown(name, options, taken))
            self.ignored.append(name)

    def __getitem__(self, option: Option[T]) -> T:
        """The value in force. For a topic option: the broker's default for it."""
        return cast(T, self._values.get(option.name, option.default))

    def source(self, option: Option[Any]) -> str | None:
        """The name under which the value was given; None where the default holds."""
        names = option.broker_names or (BrokerName(option.name),)
        return next((name for name, _ in names if name in self.given), None)


def _in_unit(option: Option[Any], text: str, name: str, factor: int) -> int:
    """A number given in another unit. Negative means "no limit" in every unit, as in Kafka."""
    try:
        number = int(text)
    except ValueError:
        raise InvalidConfig(f"{name} takes a whole number, not {text!r}") from None
    return cast(int, option.parse(str(number * factor if number >= 0 else -1), name))


def _unknown(name: str, options: Iterable[Option[Any]], taken: Iterable[str]) -> str:
    for option in options:
        if option.name == name:
            default = option.broker_names[0].name
            return f"{name} is an option of topics; {default} sets the default for all"
    import difflib  # only ever needed on the way out

    close = difflib.get_close_matches(name, taken, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"there is no option {name!r}{hint}"
