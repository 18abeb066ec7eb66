"""Cases: what is asked, of which key and version, and how they are declared.

Owns the two decorators. A case is a function of a Peer and a version that asks and returns what it
was answered; it is run on both brokers. Must not judge an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ottla.handlers.registry import API
from tests.oracle.answers.peer import Peer

Run = Callable[[Peer, int], Any]


class Case(NamedTuple):
    """`rows` are the numbers of the table of hostile input that it stands for."""

    key: int
    version: int
    name: str
    rows: tuple[int, ...]
    is_success: bool
    run: Run

    @property
    def id(self) -> str:
        return f"{API[self.key].name}-v{self.version}-{self.name}"


CASES: list[Case] = []


def _declare(key: int, versions: Iterable[int] | None, run: Run, name: str, success: bool) -> None:
    if key not in API:
        return  # ahead of what is served
    api = API[key]
    rows = tuple(map(int, re.findall(r"(?:^|_)h(\d+)(?=_)", name)))
    served = versions or range(api.accepted, api.highest + 1)
    name = name.replace("_", "-")
    CASES.extend(Case(key, version, name, rows, success, run) for version in served)


def success(key: int, versions: Iterable[int] | None = None) -> Callable[[Run], Run]:
    """What a well-behaved client asks: in every version that is served, unless told otherwise."""

    def declare(run: Run) -> Run:
        _declare(key, versions, run, run.__name__, True)
        return run

    return declare


def error(key: int, *versions: int) -> Callable[[Run], Run]:
    """What nobody should ask. Named after its rows: h29_h30_acks_of_two. Highest version if none."""

    def declare(run: Run) -> Run:
        if key in API:
            _declare(key, versions or (API[key].highest,), run, run.__name__, False)
        return run

    return declare


def each(key: int, *versions: int, **inputs: Any) -> Callable[[Callable[..., Any]], Any]:
    """As `error` for several inputs: name=input, each a case of its own."""

    def declare(run: Callable[..., Any]) -> Callable[..., Any]:
        if key in API:
            for label, given in inputs.items():

                def one(peer: Peer, version: int, given: Any = given) -> Any:
                    return run(peer, version, given)

                _declare(
                    key, versions or (API[key].highest,), one, f"{run.__name__}_{label}", False
                )
        return run

    return declare
