"""The mechanism of options: each is declared once, by Kafka's own name.

Owns Option and how text becomes a value; the declarations are in `options.py` and
`topic_options.py`. Must not read files or the command line (the cli does) and must not know who
uses an option.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar, cast

from ottla.core.value import Value

T = TypeVar("T", bool, int, float, str)
Scope = Literal["broker", "topic", "group"]

SHORT_MAX = (1 << 15) - 1
INT_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1
"""The bounds of Kafka's SHORT, INT and LONG."""

_TRUTH = {"true": True, "false": False}


class InvalidConfig(Exception):
    """A value that an option does not take. The text names the option and what it takes."""


class Kind(IntEnum):
    """Types of values, numbered as on the wire (DescribeConfigs v3)."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7


class BrokerName(NamedTuple):
    """A broker option that sets a topic option's default; `factor` is its unit in the topic's.

    `unset` says that the name itself has no default: another one of the same option has it.
    """

    name: str
    factor: int = 1
    unset: bool = False

    @property
    def live(self) -> bool:
        """Whether it can be changed while the broker runs: in Kafka, if it has the topic's unit."""
        return self.factor == 1


class Option(Value, Generic[T]):
    """One option.

    A topic option's broker-wide default is set by the first of `broker_names` that is given,
    as in Kafka (`log.retention.ms` before `log.retention.minutes` before `log.retention.hours`).
    `also` are values taken though they lie outside the bounds; with `many`, the value is a list
    of `one_of` separated by commas, which may be empty. `listed` is any list of text; an empty
    value of a `nullable` one is shown as null. `check` says what the value should have been, or
    nothing, where bounds can't. A group option's default is the value of its one broker name.
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
    listed: bool = False
    nullable: bool = False
    check: Callable[[str], str] | None = None

    @property
    def kind(self) -> Kind:
        """What Kafka calls the type of the values."""
        if isinstance(self.default, bool):
            return Kind.BOOLEAN
        if isinstance(self.default, str):
            return Kind.LIST if self.many or self.listed else Kind.STRING
        if isinstance(self.default, float):
            return Kind.DOUBLE
        if self.at_most is None or SHORT_MAX < self.at_most <= INT_MAX or self.at_most < SHORT_MAX:
            return Kind.INT
        return Kind.SHORT if self.at_most == SHORT_MAX else Kind.LONG

    def parse(self, text: str, name: str | None = None) -> T:
        """The value that `text` names. Raises InvalidConfig, which calls the option `name`.

        The sentence is Kafka's own, since clients see it and people search for it.
        """
        name = name or self.name
        value = self._convert(text.strip(), name)
        fault = self._fault(value)
        if fault:
            shown = self._strangers(value)[0] if isinstance(value, str) and self.many else value
            raise InvalidConfig(f"Invalid value {shown} for configuration {name}: {fault}")
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
            wanted = "Expected value to be either true or false"
            if kind is not bool:
                wanted = f"Not a number of type {self.kind.name}"
            message = f"Invalid value {text} for configuration {name}: {wanted}"
            raise InvalidConfig(message) from None

    def _fault(self, value: bool | int | float | str) -> str:
        """What the value should have been, or nothing."""
        if isinstance(value, str):
            if self.check is not None:
                return self.check(value)
            if self._strangers(value):
                return f"String must be one of: {', '.join(self.one_of)}"
            return ""
        if value in self.also:
            return ""
        if math.isnan(value):
            return "Value must be a number"
        least, most = self.at_least, self.at_most
        if (least is not None and value < least) or (most is not None and value > most):
            if self.also:
                also = " or ".join(map(str, self.also))
                return f"Value must be between {least} and {most} or equal to {also}"
            if least is not None and value < least:
                return f"Value must be at least {least}"
            return f"Value must be no more than {most}"
        return ""

    def _strangers(self, value: str) -> list[str]:
        """What of a value, or of its list, is none of `one_of`."""
        if not self.one_of or (self.many and not value):
            return []
        parts = value.split(",") if self.many else [value]
        return [part for part in parts if part not in self.one_of]

    def text(self, value: T) -> str | None:
        """The value as Kafka would show it; `parse` takes it back."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            # Java writes 1.7E308 where Python writes 1.7e+308.
            return repr(value).replace("e+", "E").replace("e", "E")
        return None if value == "" and self.nullable else str(value)


Name: TypeAlias = "tuple[Option[Any], BrokerName]"


class Config:
    """The broker's values in force: what was given by name, else each option's default.

    Three layers, the later over the earlier, each as text by name: `given` at the start (a file,
    the command line), `cluster_wide` and `own` while it runs, for all brokers and for this one.
    `ignored` lists names given at the start that Kafka knows and that mean nothing here, for a
    line of warning. `names` is every name that can be given, with its option.
    """

    __slots__ = (
        "_listeners",
        "_options",
        "_values",
        "cluster_wide",
        "given",
        "ignored",
        "names",
        "own",
    )

    def __init__(
        self,
        options: Iterable[Option[Any]],
        given: Mapping[str, str],
        ignorable: frozenset[str] = frozenset(),
    ) -> None:
        """Parse every given value. Raises InvalidConfig for a bad value or an unknown name."""
        self.given: Mapping[str, str] = dict(given)
        self.cluster_wide: Mapping[str, str] = {}
        self.own: Mapping[str, str] = {}
        self.ignored: list[str] = []
        self._listeners: list[Callable[[], None]] = []
        self._options = tuple(option for option in options if option.scope != "group")
        self.names: dict[str, Name] = {
            name.name: (option, name)
            for option in self._options
            for name in option.broker_names or (BrokerName(option.name),)
        }
        for name in given:
            if name in self.names:
                continue
            if name not in ignorable:
                raise InvalidConfig(_unknown(name, self._options, self.names))
            self.ignored.append(name)
        self._values: dict[str, Any] = self._resolved(given)

    def _resolved(self, given: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        # By the options' own order, in which the first name given wins.
        for name, (option, (_, factor, _)) in self.names.items():
            if name in given:
                value = (
                    option.parse(given[name], name)
                    if factor == 1
                    else _in_unit(option, given[name], name, factor)
                )
                values.setdefault(option.name, value)
        return values

    def __getitem__(self, option: Option[T]) -> T:
        """The value in force. For a topic option: the broker's default for it."""
        value: T = self._values.get(option.name, option.default)
        return value

    @property
    def texts(self) -> dict[str, str]:
        """What is in force of what was given, by name."""
        return {**self.given, **self.cluster_wide, **self.own}

    # --- while it runs ---------------------------------------------------------------------

    def check(self, name: str, text: str) -> None:
        """Whether an option takes a value while the broker runs. Raises InvalidConfig."""
        self.names[name][0].parse(text, name)

    def is_live(self, name: str) -> bool:
        """Whether the option can be changed while the broker runs."""
        option, one = self.names[name]
        return option.live and one.live

    def override(self, cluster_wide: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
        """Take what is set while the broker runs, in place of what was; tell all listeners.

        Returns the faults of what could not be taken and is passed over: another version of
        ottla may have let it in.
        """
        faults: list[str] = []
        self.cluster_wide = self._sound(cluster_wide, faults)
        self.own = self._sound(own, faults)
        self._values = self._resolved(self.texts)
        for listener in self._listeners:
            listener()
        return faults

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every `override`. Who reads a value each time needs none."""
        self._listeners.append(listener)

    def _sound(self, given: Mapping[str, str], faults: list[str]) -> dict[str, str]:
        sound: dict[str, str] = {}
        for name, text in given.items():
            try:
                if name not in self.names or not self.is_live(name):
                    raise InvalidConfig(f"{name} can't be changed while the broker runs")
                self.check(name, text)
            except InvalidConfig as fault:
                faults.append(str(fault))
            else:
                sound[name] = text
        return sound


def _in_unit(option: Option[Any], text: str, name: str, factor: int) -> int:
    """A number given in another unit. Negative means "no limit" in every unit, as in Kafka."""
    try:
        number = int(text)
    except ValueError:
        message = f"Invalid value {text} for configuration {name}: Not a number of type INT"
        raise InvalidConfig(message) from None
    return cast(int, option.parse(str(number * factor if number >= 0 else -1), name))


def _unknown(name: str, options: Iterable[Option[Any]], taken: Iterable[str]) -> str:
    for option in options:
        if option.name == name:
            default = option.broker_names[0].name
            return f"{name} is an option of topics; {default} sets the default for all"
    import difflib  # only ever needed on the way out

    close = difflib.get_close_matches(name, taken, n=1)
    hint = f"; did you mean {close[0]}?" if close else "; docs/CONFIG.md lists those there are"
    return f"there is no option {name!r}{hint}"
