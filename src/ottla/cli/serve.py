"""`ottla serve`: from arguments to a running node.

Owns the arguments of `serve` and what becomes of them: Kafka's names, in one mapping. Must not
import argparse, which alone takes 5 of the 150 ms that a start may take; nor may it know what an
option's value means, which is `core/config.py`'s.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from ottla import __version__
from ottla.cli.errors import BadInput, CommandError, nearest

DATA_DIR = "./ottla-data"
LISTEN = ("127.0.0.1:9092", "[::1]:9092")
ADMIN = "127.0.0.1:9644"
LOG_FORMATS = ("text", "json")
WILDCARDS = frozenset({"", "*", "0.0.0.0", "::"})

HELP = f"""\
Usage: ottla serve [OPTIONS]

Start a broker, and serve until SIGTERM or Ctrl-C.

Options:
  --data-dir DIR         Where the log lives; made if missing.
                         [default: {DATA_DIR}]
  --listen HOST:PORT     Where to listen; may be given several times. Port 0
                         picks a free one, HOST 0.0.0.0 or [::] means every
                         address of the machine.
                         [default: {LISTEN[0]} and {LISTEN[1]}]
  --advertise HOST:PORT  The address that clients are told to connect to.
                         [default: where it listens]
  --admin HOST:PORT      Where `ottla top`, Prometheus and you find figures,
                         over HTTP; empty: nowhere.
                         [default: {ADMIN}, without --listen]
  --config FILE          Options from FILE: TOML, or Kafka's own .properties.
  -o KEY=VALUE           Set one option by Kafka's name, such as
                         -o num.partitions=3; may be given several times.
                         Sizes are in bytes, times in milliseconds.
  --log-format FORMAT    How events are logged to stderr: text, or json for an
                         object a line. [default: text]
  -v, --verbose          Log connections too, as they come and go.
  --help                 Show this and leave.

The command line wins over FILE, and FILE over the defaults.
There is no authentication yet: by default only this machine can connect.

Examples:
  ottla serve
  ottla serve --data-dir /var/lib/ottla -o num.partitions=3
  ottla serve --listen 0.0.0.0:9092 --advertise broker.example.org:9092
"""

VALUED = {
    "--data-dir": "DIR",
    "--listen": "HOST:PORT",
    "--advertise": "HOST:PORT",
    "--admin": "HOST:PORT",
    "--config": "FILE",
    "-o": "KEY=VALUE",
    "--log-format": "json",
}
_FLAGS = ("--verbose", "-v", "--help", "-h")


class Arguments:
    """What was typed behind `serve`, in the order of typing, not yet understood."""

    __slots__ = (
        "admin",
        "advertise",
        "config",
        "data_dir",
        "help",
        "listen",
        "log_format",
        "options",
        "verbose",
    )

    def __init__(self) -> None:
        self.data_dir: str | None = None
        self.listen: list[str] = []
        self.advertise: str | None = None
        self.admin: str | None = None
        self.config: str | None = None
        self.options: dict[str, str] = {}
        self.log_format = "text"
        self.verbose = False
        self.help = False


def run(argv: Sequence[str]) -> int:
    """Serve until told to stop; return the exit code. Raises CommandError with one sentence."""
    arguments = parse(argv)
    if arguments.help:
        sys.stdout.write(HELP)
        return 0
    given = watchable(settle(arguments))
    from ottla.host import logs  # `--help` needs none of these

    as_json = arguments.log_format == "json"
    logs.configure(as_json=as_json, verbose=arguments.verbose)
    if warning := open_to_all(given):
        logs.warn(warning)
    try:
        return _serve(given, arguments)
    except CommandError as error:
        if not as_json:
            raise
        # Whoever collects JSON is to find the reason there, too.
        logs.fail(str(error))
        return error.exit_code


def _serve(given: Mapping[str, str], arguments: Arguments) -> int:
    # Imports make much and drop little; a collection finds nothing. The node turns it on again.
    gc.disable()
    from ottla.core.config import InvalidConfig
    from ottla.node import StartError
    from ottla.process import serve

    try:
        return serve(given, announce=announcer(data_dir(given)))
    except InvalidConfig as error:
        raise BadInput(f"{_where(str(error), arguments)}{error}") from None
    except (StartError, OSError) as error:
        raise CommandError(str(error)) from None


def _where(complaint: str, arguments: Arguments) -> str:
    """The file that an option complained about stands in, before the complaint."""
    typed = any(name in complaint for name in arguments.options)
    return f"{arguments.config}: " if arguments.config and not typed else ""


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments. Raises BadInput, which names what was probably meant."""
    arguments = Arguments()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, value = _split(word)
        if name in _FLAGS and value is None:
            arguments.help |= name in {"--help", "-h"}
            arguments.verbose |= name in {"--verbose", "-v"}
        elif name in VALUED:
            if value is None:
                if not rest:
                    raise BadInput(f"{name} needs a value; try: ottla serve {name} {VALUED[name]}")
                value = rest.pop(0)
            _take(arguments, name, value)
        else:
            raise BadInput(_unknown(word, name))
    return arguments


def _split(word: str) -> tuple[str, str | None]:
    """`--name=value` and `-okey=value` in two; a word without a value in it alone."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    if word.startswith("-o") and len(word) > 2:
        return "-o", word[2:]
    return word, None


def _take(arguments: Arguments, name: str, value: str) -> None:
    if name == "--data-dir":
        arguments.data_dir = value
    elif name == "--listen":
        arguments.listen.append(value)
    elif name == "--advertise":
        arguments.advertise = value
    elif name == "--admin":
        arguments.admin = value
    elif name == "--config":
        arguments.config = value
    elif name == "--log-format":
        if value not in LOG_FORMATS:
            raise BadInput(f"--log-format takes text or json, not {value!r}; try: {name} json")
        arguments.log_format = value
    else:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise BadInput(f"-o takes KEY=VALUE, not {value!r}; try: -o num.partitions=3")
        arguments.options[key.strip()] = text.strip()


def _unknown(word: str, name: str) -> str:
    if not word.startswith("-"):
        option = "--listen" if word.rpartition(":")[2].isdecimal() else "--data-dir"
        return f"serve takes options only, not {word!r}; try: ottla serve {option} {word}"
    if "." in name:  # one of Kafka's names, as an option
        return f"there is no option {name}; try: ottla serve -o {word.lstrip('-')}"
    if meant := nearest(name, [*VALUED, *_FLAGS]):
        example = f"ottla serve {meant} {VALUED.get(meant, '')}".rstrip()
        return f"there is no option {name}; try: {example}"
    return f"there is no option {name}; try: ottla serve --help"


def settle(arguments: Arguments) -> dict[str, str]:
    """Everything given, by Kafka's names: what was typed wins over what the file says.

    Raises BadInput for an address that isn't one and a file that can't be read.
    """
    given = read_config(arguments.config) if arguments.config is not None else {}
    if "log.dir" in arguments.options:
        # Of Kafka's two names for the place of the log the plural one wins; the file's may not
        # win over the one that was typed.
        given.pop("log.dirs", None)
    given |= arguments.options
    if arguments.data_dir is not None:
        given["log.dirs"] = arguments.data_dir
    if arguments.listen:
        given["listeners"] = _listeners(arguments.listen)
    if arguments.advertise is not None:
        given["advertised.listeners"] = _listeners([arguments.advertise], "--advertise")
    if arguments.admin is not None:
        given["admin.listener"] = _address(arguments.admin, "--admin") if arguments.admin else ""
    return given


def watchable(given: dict[str, str]) -> dict[str, str]:
    """With a place for figures, for the one broker of a machine that is told no place at all."""
    return given if "listeners" in given else {"admin.listener": ADMIN, **given}


def data_dir(given: Mapping[str, str]) -> str:
    """Where the log will live, as `core/options.py` settles it."""
    return given.get("log.dirs") or given.get("log.dir") or DATA_DIR


def _listeners(addresses: Sequence[str], name: str = "--listen") -> str:
    return ",".join(f"PLAINTEXT://{_address(address, name)}" for address in addresses)


def _address(text: str, name: str) -> str:
    """`text` if it is HOST:PORT, with brackets around an IPv6 host."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        usual = ADMIN.rpartition(":")[2] if name == "--admin" else "9092"
        hint = f"127.0.0.1:{text}" if text.isdecimal() else f"{text}:{usual}"
        hint = f"127.0.0.1:{usual}" if ":" in text or not text else hint
        raise BadInput(f"{name} takes HOST:PORT, not {text!r}; try: {name} {hint}")
    if name == "--advertise" and (host.strip("[]") in WILDCARDS or int(port) == 0):
        raise BadInput(
            f"clients can't connect to {text!r}; try: --advertise with a name and port that "
            "they can reach, such as broker.example.org:9092"
        )
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{host}:{port}"


def read_config(path: str) -> dict[str, str]:
    """The options in a file, by Kafka's names. Raises BadInput."""
    from ottla.core import config_files  # most starts have no file
    from ottla.core.config import InvalidConfig

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"can't read the config file {path}: {reason}") from None
    parser: Callable[[str], dict[str, str]]
    if path.endswith(".properties"):
        parser = config_files.from_properties
    else:
        parser = config_files.from_toml
    try:
        return parser(text)
    except (ValueError, InvalidConfig) as error:
        raise BadInput(f"{path}: {error}") from None


def open_to_all(given: Mapping[str, str]) -> str | None:
    """The warning for a broker that listens everywhere and can't say where it is."""
    if given.get("advertised.listeners"):
        return None
    for listener in given.get("listeners", LISTEN[0]).split(","):
        host, _, port = listener.rpartition("://")[2].rpartition(":")
        if host.strip("[] ") in WILDCARDS:
            return (
                f"listening on every address, but clients elsewhere need one to connect "
                f"to; add --advertise NAME-OF-THIS-MACHINE:{port.strip()}"
            )
    return None


def announcer(directory: str) -> Callable[[str], None]:
    """What the node calls, with where it listens, once it does."""

    def announce(where: str) -> None:
        took_ms = round(since_start_ms())
        line = f"ottla {__version__} ready on {where}, data in {directory} ({took_ms} ms)\n"
        sys.stdout.write(line)
        sys.stdout.flush()

    return announce


_LOADED_AT = time.perf_counter()


def since_start_ms() -> float:
    """Milliseconds since the process began, the interpreter's own start included.

    Linux tells when that was, to 10 ms. Elsewhere the count begins when this module is loaded.
    """
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            # The name of the program is in parentheses and may contain anything, spaces too.
            ticks = int(file.read().rpartition(")")[2].split()[19])
        from os import sysconf  # there is none on Windows

        begun_s = ticks / sysconf("SC_CLK_TCK")
        return (time.clock_gettime(time.CLOCK_BOOTTIME) - begun_s) * 1e3
    except (OSError, ValueError, IndexError, AttributeError, ImportError):
        return (time.perf_counter() - _LOADED_AT) * 1e3
