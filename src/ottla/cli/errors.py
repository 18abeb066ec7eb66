"""How a command says that it can't: one sentence, and an exit code.

Owns the exceptions that end a command. Must not import anything: `serve` uses it.
"""

from __future__ import annotations


class CommandError(Exception):
    """It failed through nobody's typing: no broker there, a record refused, damage found."""

    exit_code = 1


class BadInput(CommandError):
    """What was typed can't be meant. The text says what to type instead."""

    exit_code = 2


class Interrupted(CommandError):
    """Ctrl-C, where there is something to say about what was done until then."""

    exit_code = 130


class ReaderLeft(Exception):
    """Whoever read our output has had enough (`| head`). No failure of anybody's."""


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    from difflib import get_close_matches  # only on the way to an error message

    found = get_close_matches(word, known, n=1, cutoff=0.6)
    return found[0] if found else None
