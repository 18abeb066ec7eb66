"""What options say about one consumer group: the broker's, and what the group has of its own.

Owns the lookup. Must not use any of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster import keys
from ottla.cluster.image import NO_SETTINGS
from ottla.coordinator.group.consumer import Settings
from ottla.core import group_options, topic_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ottla.cluster.image import ClusterImage
    from ottla.core.config import Config, Option


_RECORD_OVERHEAD = 1024
"""Of a batch and a record, and of a group's name."""


class ConsumerSettings:
    """Settings by group. Those of groups without any of their own are one object."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._common: Settings | None = None
        self._common_ms: tuple[int, ...] = ()

    def of(self, image: ClusterImage, group_id: str) -> Settings:
        own = image.settings.get(keys.group_settings(group_id), NO_SETTINGS).configs
        times = self._times(own)
        if self._common is None or times != self._common_ms:
            settings = self._make(times)
            if own:
                return settings
            self._common, self._common_ms = settings, times
        return self._common

    def _times(self, own: Mapping[str, str]) -> tuple[int, ...]:
        config = self._config
        if not own:
            return (
                config[group_options.CONSUMER_SESSION_MS],
                config[group_options.CONSUMER_HEARTBEAT_MS],
                config[group_options.CONSUMER_ASSIGNMENT_MS],
            )
        return tuple(self._time(name, own) for name in _BROKERS)

    def _time(self, name: str, own: Mapping[str, str]) -> int:
        """A time that is out of the broker's bounds by now counts as the nearest within."""
        option: Option[int] = group_options.GROUP_OPTIONS[name]
        text = own.get(name)
        if text is None:
            return int(self._config[_BROKERS[name]])
        least, most = group_options.GROUP_BOUNDS[name]
        return min(max(int(option.parse(text)), self._config[least]), self._config[most])

    def _make(self, times: tuple[int, ...]) -> Settings:
        config = self._config
        policy = config[group_options.CONSUMER_MIGRATION]
        session_ms, heartbeat_ms, assignment_ms = times
        return Settings(
            session_ms=session_ms,
            heartbeat_ms=heartbeat_ms,
            waiting_ms=min(config[group_options.CONSUMER_WAITING_HEARTBEAT_MS], heartbeat_ms),
            assignment_ms=assignment_ms,
            size_max=config[group_options.CONSUMER_MAX_SIZE],
            bytes_max=config[group_options.GROUP_BYTES_MAX],
            regex_bytes_max=config[group_options.GROUP_REGEX_BYTES_MAX],
            record_bytes_max=config[topic_options.MAX_MESSAGE_BYTES] - _RECORD_OVERHEAD,
            assignors=tuple(config[group_options.CONSUMER_ASSIGNORS].split(",")),
            can_join_classic=policy != "disabled",
            can_upgrade=policy in ("bidirectional", "upgrade"),
            can_downgrade=policy in ("bidirectional", "downgrade"),
            classic_size_max=config[group_options.GROUP_MAX_SIZE],
        )


_BROKERS = {
    "consumer.session.timeout.ms": group_options.CONSUMER_SESSION_MS,
    "consumer.heartbeat.interval.ms": group_options.CONSUMER_HEARTBEAT_MS,
    "consumer.assignment.interval.ms": group_options.CONSUMER_ASSIGNMENT_MS,
}
