"""The mechanism of options: each is declared once, by Kafka's own name.

Owns Option and how text becomes a value; the declarations are in `core/options.py`. Must not
read files or the command line (the cli does) and must not know who uses an option.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

T = TypeVar("T", bool, int, float, str)
Scope = Literal["broker", "topic"]

_TRUTH = {"true": True, "false": False}


class InvalidConfig(Exception):
    """A value that an option does not take. The text names the option and what it takes."""


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One option. A topic option's broker-wide default is set by `broker_name`, as in Kafka."""

    name: str
    default: T
    doc: str
    scope: Scope = "broker"
    live: bool = False
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[str, ...] = ()
    broker_name: str | None = None

    def parse(self, text: str) -> T:
        """The value that `text` names. Raises InvalidConfig."""
        value = self._convert(text.strip())
        if isinstance(value, str):
            if self.one_of and value not in self.one_of:
                raise InvalidConfig(
                    f"{self.name} must be one of {', '.join(self.one_of)}, not {value!r}"
                )
        elif self.at_least is not None and value < self.at_least:
            raise InvalidConfig(f"{self.name} must be at least {self.at_least}, not {value}")
        elif self.at_most is not None and value > self.at_most:
            raise InvalidConfig(f"{self.name} must be at most {self.at_most}, not {value}")
        return value

    def _convert(self, text: str) -> T:
        kind = type(self.default)
        try:
            if kind is bool:
                return cast(T, _TRUTH[text.lower()])
            return cast(T, kind(text))
        except (KeyError, ValueError):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise InvalidConfig(f"{self.name} takes {wanted}, not {text!r}") from None


class Config:
    """The values in force: what was given by name, else each option's default."""

    __slots__ = ("_options", "_values", "given")

    def __init__(self, options: Iterable[Option[Any]], given: Mapping[str, str]) -> None:
        """Parse every given value. Raises InvalidConfig for a bad value or an unknown name."""
        self._options: dict[str, Option[Any]] = {option.name: option for option in options}
        self.given = dict(given)
        self._values: dict[str, Any] = {}
        for name, text in given.items():
            option = self._options.get(name)
            if option is None:
                raise InvalidConfig(f"there is no option {name!r}")
            self._values[name] = option.parse(text)

    def __getitem__(self, option: Option[T]) -> T:
        return cast(T, self._values.get(option.name, option.default))
