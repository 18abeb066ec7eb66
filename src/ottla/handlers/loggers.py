"""The loggers of this process as DescribeConfigs and IncrementalAlterConfigs know them (KIP-412).

Owns the mapping between Kafka's levels and Python's. Only ottla's own loggers: whoever embeds a
broker keeps the levels of everything else. What is set here lasts as long as the process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from ottla.cluster.configs import ConfigOp
from ottla.cluster.topics import Refused
from ottla.core.config_entries import ConfigEntry, Source
from ottla.protocol.errors import ErrorCode

ROOT = "ottla"

_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}
_NAMES = {level: name for name, level in _LEVELS.items()}


def logger_names() -> list[str]:
    """Every logger of ours that there is, in order."""
    there = logging.getLogger(ROOT).manager.loggerDict
    return [ROOT, *sorted(name for name in there if name.startswith(f"{ROOT}."))]


def logger_entries() -> Iterator[ConfigEntry]:
    """Each logger with the level in force."""
    for name in logger_names():
        level = logging.getLogger(name).getEffectiveLevel()
        text = _NAMES.get(level) or logging.getLevelName(level)
        yield ConfigEntry(name, text, Source.LOGGER, False, None, "", ())


def alter_loggers(
    changes: Sequence[tuple[str, int, str | None]], *, validate_only: bool
) -> Refused | None:
    """Set or unset levels; all of them or, where one is wrong, none."""
    names = set(logger_names())
    for name, op, text in changes:
        if op not in (ConfigOp.SET, ConfigOp.DELETE):
            kind = ConfigOp(op).name if op in set(ConfigOp) else str(op)
            message = f"{kind} operation is not allowed for the BROKER_LOGGER resource"
            return Refused(ErrorCode.INVALID_REQUEST, message)
        if name not in names:
            return Refused(ErrorCode.INVALID_CONFIG, f"Logger {name} does not exist!")
        if op == ConfigOp.SET and text not in _LEVELS:
            message = (
                f"Cannot set the log level of {name} to {text} as it is not a supported log "
                f"level. Valid log levels are {', '.join(sorted(_LEVELS))}"
            )
            return Refused(ErrorCode.INVALID_CONFIG, message)
        if op == ConfigOp.DELETE and name == ROOT:
            message = f"Removing the log level of the {ROOT} logger is not allowed"
            return Refused(ErrorCode.INVALID_REQUEST, message)
    if not validate_only:
        for name, op, text in changes:
            level = logging.NOTSET if op == ConfigOp.DELETE else _LEVELS[text or ""]
            logging.getLogger(name).setLevel(level)
    return None
