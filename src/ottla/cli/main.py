"""The entry point `ottla`: decides which half of the command line is meant, and imports only it.

Owns that decision and the exit codes. Must not import typer, rich, click or a client library on
the way to `serve`: a broker that answers within 150 ms of being started cannot pay for them.

Exit codes: 0 done · 1 it failed · 2 the input was bad · 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ottla.cli.errors import CommandError, ReaderLeft


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the process's own) names; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["serve"]:
            from ottla.cli import serve  # each half pays only for itself

            return serve.run(arguments[1:])
        if arguments == ["--version"]:
            from ottla import __version__

            sys.stdout.write(f"ottla {__version__}\n")
            return 0
        from ottla.cli import app

        return app.run(arguments)
    except CommandError as error:
        _complain(str(error))
        return error.exit_code
    except (BrokenPipeError, ReaderLeft):
        return _reader_left()
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"{place}{error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _complain(sentence: str) -> None:
    """One line on stderr. What a broker or a file says in it can't move the cursor."""
    from ottla.host.terminal import RED, escaped, painted  # only on the way out

    sys.stderr.write(f"{painted('ottla:', RED, sys.stderr)} {escaped(sentence)}\n")


def _reader_left() -> int:
    """End quietly when whoever read our output has had enough (`ottla consume t | head`)."""
    import os

    # The interpreter flushes stdout once more on its way out, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
