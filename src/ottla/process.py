"""A node as a process of its own: run until a signal, with an exit code, and told to its operator.

Owns what only a process has: signals, its limit of open files, the collector's rest, and what is
logged of the start and the stop. Must not be needed by a node in somebody else's process.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress

from ottla.core import options
from ottla.core.config import Config
from ottla.core.no_effect_yet import NO_EFFECT_YET
from ottla.core.ports import DiskError
from ottla.core.version import __version__
from ottla.host.descriptors import descriptors_max, raise_descriptors_max
from ottla.node import Node
from ottla.server.poller import new_loop

_log = logging.getLogger("ottla.node")

_FILES_OF_A_PARTITION = 3
"""Its last segment and the two indexes, which are written again and again."""


def serve(given: Mapping[str, str], *, announce: Callable[[str], None]) -> int:
    """Run a node in this process until SIGTERM or SIGINT; the exit code.

    `given` maps Kafka's option names to text. `announce` is called once, with where the node
    listens, when it does. Raises InvalidConfig and StartError, each with one sentence.
    """
    config = options.broker_config(given)
    raise_descriptors_max()
    _tell_idle_options(config)
    loop = new_loop()
    node = Node(config, loop)
    try:
        endpoints = node.start()
        _tell_opened(node)
        _tell_few_descriptors(node)
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, _stop, node, loop)
        loop.call_soon(lambda: announce(str(endpoints[0])))
        # What start made lives as long as the process: the collector need not look at it again.
        gc.freeze()
        gc.enable()
        loop.run_forever()
        node.close(clean=True)
        _tell_stopped([str(key) for key, log in node.directory.logs.items() if log.failed])
    except DiskError as error:
        _log.critical(
            "stopped, but not cleanly: %s. The next start reads the logs from where they were "
            "last known to be on disk, and cuts what was torn",
            error,
        )
        return 1
    finally:
        with suppress(DiskError):
            node.close(clean=False)
        loop.close()
    return 0


def _tell_stopped(offline: list[str]) -> None:
    """What the stop was like; with a log that can't be trusted the next start reads them all."""
    if offline:
        few = ", ".join(offline[:3]) + (", …" if len(offline) > 3 else "")
        count = f"{len(offline)} partition{'s' * (len(offline) != 1)}"
        _log.warning(
            "stopped, but not marked as clean because of %s that could not be used (%s): the next "
            "start reads the logs from where they were last known to be on disk",
            count,
            few,
            extra={"fields": {"event": "stopped"}},
        )
    else:
        _log.info("stopped cleanly", extra={"fields": {"event": "stopped"}})


def _stop(node: Node, loop: asyncio.AbstractEventLoop) -> None:
    """First signal: drain, then stop. Another one: stop now."""
    _log.info(
        "stopping: requests in process are answered first, for at most %g s; another signal cuts "
        "them off",
        node.config[options.SHUTDOWN_MS] / 1000,
        extra={"fields": {"event": "stopping"}},
    )
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(signal_)
        loop.add_signal_handler(signal_, loop.stop)
    node.drain().then(loop.stop)


def _tell_idle_options(config: Config) -> None:
    """One line each about what was set and changes nothing: here, or not yet."""
    if config.ignored:
        _log.warning(
            "options without an effect here are passed over: %s; docs/CONFIG.md says why",
            ", ".join(sorted(config.ignored)),
        )
    named = [name for name in config.given if name in config.names]
    idle = [name for name in named if config.names[name][0].name in NO_EFFECT_YET]
    if idle:
        _log.warning(
            "options that have no effect yet are set: %s; docs/CONFIG.md marks them",
            ", ".join(sorted(idle)),
        )


def _tell_opened(node: Node) -> None:
    """One line about the start: who runs where, and in what state the logs were."""
    directory = node.directory
    count = len(directory.logs)
    state = f"{count} partition{'s' * (count != 1)}"
    if directory.was_clean:
        state += ", closed cleanly the last time"
    elif count:
        state += f", not closed cleanly: read again, findings: {len(directory.found) or 'none'}"
    _log.info(
        "ottla %s, node %d of cluster %s, opened %s: %s",
        __version__,
        node.id,
        node.view.image.cluster_id if node.view is not None else "?",
        node.path,
        state,
        extra={
            "fields": {
                "event": "opened",
                "version": __version__,
                "node": int(node.id),
                "directory": node.path,
                "partitions": count,
                "clean": directory.was_clean,
                "findings": len(directory.found),
            }
        },
    )


def _tell_few_descriptors(node: Node) -> None:
    """Say what to raise where partitions in use would keep opening and closing their files."""
    wanted = _FILES_OF_A_PARTITION * len(node.directory.logs)
    most = node.disk.open_files.files_max
    if wanted > most:
        limit = descriptors_max()
        _log.warning(
            "%d partitions would keep %d files open, but logs may have %d at one time: files are "
            "closed and opened again, which costs time. Raise the limit of open files of the "
            "process, now %d, to %d or more (ulimit -n, LimitNOFILE=), or "
            "file.descriptors.logs.max where it is set",
            len(node.directory.logs),
            wanted,
            most,
            limit,
            2 * wanted + node.config[options.DESCRIPTORS_RESERVED],
            extra={"fields": {"event": "few-descriptors", "limit": limit, "wanted": wanted}},
        )
