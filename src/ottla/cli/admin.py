"""What a cluster is asked to do by an admin client: where it is asked, and what came of it.

Owns the waiting, and the difference between what was asked wrongly and what the cluster won't do.
Must not know any one operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla.cli.client import PATIENCE_S, Cluster, connect, library, no_answer
from ottla.cli.errors import BadInput, CommandError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from ottla.cli import arguments

OPERATION_S = 30.0
"""How long the cluster may take to make or delete a topic."""


def connected(options: arguments.Connection) -> tuple[Cluster, AdminClient]:
    """The cluster that the options name. Raises CommandError if nothing answers there."""
    cluster = connect(options.bootstrap, options.setting)
    return cluster, cluster.admin()


def outcome(cluster: Cluster, future: Any, hint: str = "ottla topic create --help") -> Any:
    """Wait for one operation's result. What the request itself got wrong is bad input."""
    kafka = library()
    try:
        return future.result(OPERATION_S + PATIENCE_S)
    except kafka.KafkaException as error:
        code = error.args[0].code()
        sentence = no_answer(cluster, error).rstrip(".")
        if code == kafka.KafkaError.TOPIC_ALREADY_EXISTS:
            raise CommandError(
                f"{sentence}; try: ottla topic describe, or delete it first"
            ) from None
        mistakes = {
            kafka.KafkaError.TOPIC_EXCEPTION,
            kafka.KafkaError.INVALID_CONFIG,
            kafka.KafkaError.INVALID_PARTITIONS,
            kafka.KafkaError.INVALID_REPLICATION_FACTOR,
        }
        if code in mistakes:
            raise BadInput(f"{sentence}; try: {hint}") from None
        raise CommandError(sentence) from None
