"""`ottla produce`: records from a file or stdin into a topic.

Owns the sending and its account: what was delivered, and the first thing that wasn't.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from ottla.cli.client import Cluster, connect, library, metadata, wording
from ottla.cli.errors import BadInput, CommandError, Interrupted
from ottla.cli.progress import Progress, summary
from ottla.cli.render import object_line
from ottla.cli.rows import BadRow, Record, Source, opened, records

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

    from ottla.cli import arguments

DELIVERY_MS = 60_000
CREATION_S = 5.0
"""How long a broker may take to create a topic that it creates by itself."""
LOOK_EVERY = 1024
"""Records between two looks at the clock and at what the broker has said."""


class Delivery:
    """Counts what is handed over; remembers the first failure."""

    def __init__(self) -> None:
        self.handed = 0
        self.handed_bytes = 0
        self.failed = 0
        self.first_error = ""

    def on_failure(self, error: KafkaError | None, _message: Any) -> None:
        """Called for each record that won't arrive (`delivery.report.only.error`)."""
        if error is None:
            return
        self.failed += 1
        self.first_error = self.first_error or wording(error)


def run(options: arguments.Produce) -> int:
    """Send everything, say what was sent. Raises CommandError if a record wasn't delivered."""
    always = [_header(text) for text in options.header]
    with opened(options.file, options.format) as source:
        rows = _begun(source, options.key)
        if always:
            rows = ((key, value, headers + always, at) for key, value, headers, at in rows)
        cluster = connect(options.bootstrap, options.setting)
        delivery = Delivery()
        producer = _producer(cluster, options, delivery)
        _topic_ready(producer, cluster, options.topic)
        if source.stream.isatty():
            sys.stderr.write("reading lines from the terminal; end with Ctrl-D\n")
        bar = Progress(options.topic, sys.stderr, shown=_bar_shown(source))

        def watch(handed: int) -> None:
            bar.update(handed, source.position() / source.size if source.size else None)

        trouble = _send(producer, options.topic, rows, delivery, watch)
    unsent = _drain(producer, delivery, bar)
    bar.clear()
    delivered = delivery.handed - delivery.failed - unsent
    # Of what was lost the bytes aren't known one by one: its share of all will do.
    delivered_bytes = delivery.handed_bytes * delivered // max(delivery.handed, 1)
    if options.json:
        said = {"topic": options.topic, "records": delivered, "bytes": delivered_bytes}
        said["seconds"] = round(bar.elapsed_s, 3)
        sys.stdout.write(object_line(said))
    elif delivered or not (trouble or delivery.failed or unsent):
        sys.stderr.write(summary(delivered, delivered_bytes, bar.elapsed_s) + "\n")
    if trouble:
        sentence = f"{source.name}: {trouble}; records sent before that: {delivered:,}"
        raise trouble.__class__(sentence)
    if delivery.failed or unsent:
        reason = delivery.first_error or cluster.last_trouble or "the broker didn't answer"
        lost = f"{delivery.failed + unsent:,} of {delivery.handed:,} records"
        raise CommandError(f"{lost} were not delivered: {reason}")
    return 0


def _header(text: str) -> tuple[str, str | bytes | None]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadInput(f"--header takes NAME=VALUE, not {text!r}; try: --header source=flights")
    return name, value.encode("utf-8", "surrogateescape")


def _begun(source: Source, key: str | None) -> Iterator[Record]:
    """The records; of a file the first is read now, so that a wrong --key creates no topic."""
    rows = records(source, key)
    if source.size is None:
        return rows  # waiting for the first line of a pipe would hide that no broker is there
    try:
        return chain(list(islice(rows, 1)), rows)
    except BadRow as error:
        raise BadRow(f"{source.name}: {error}; nothing was sent") from None


def _bar_shown(source: Source) -> bool:
    return sys.stderr.isatty() and not source.stream.isatty()


def _producer(cluster: Cluster, options: arguments.Produce, delivery: Delivery) -> Producer:
    settings: dict[str, Any] = {
        "acks": options.acks.value,
        "compression.type": options.compression.value,
        # Without it a retry may store a batch twice or out of order; it needs acks=all.
        "enable.idempotence": options.acks.value == "all",
        # Where Kafka's own clients put a key; librdkafka's default is another hash.
        "partitioner": "murmur2_random",
        "linger.ms": 20,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 256 << 10,
        "message.timeout.ms": DELIVERY_MS,
        "delivery.report.only.error": True,
        "on_delivery": delivery.on_failure,
    }
    return cluster.producer(**settings)


def _topic_ready(producer: Producer, cluster: Cluster, topic: str) -> None:
    """Wait for a topic that the broker may be creating because we asked for it."""
    kafka = library()
    deadline = time.monotonic() + CREATION_S
    while True:
        error = metadata(producer, cluster, topic).topics[topic].error
        if error is None:
            return
        if error.code() == kafka.KafkaError.TOPIC_EXCEPTION:
            raise BadInput(
                f"{topic!r} can't be a topic's name; try at most 249 letters, digits, '.', '_', '-'"
            )
        if time.monotonic() > deadline or error.code() not in {
            kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
            kafka.KafkaError.LEADER_NOT_AVAILABLE,
        }:
            raise CommandError(
                f"no topic {topic!r} to send to ({wording(error)}); try: ottla topic create {topic}"
            )
        time.sleep(0.1)


def _send(
    producer: Producer,
    topic: str,
    rows: Iterator[Record],
    delivery: Delivery,
    watch: Callable[[int], None],
) -> CommandError | None:
    """Hand every record to the library; return what ended it early, if something did."""
    produce, handed, handed_bytes = producer.produce, 0, 0
    try:
        for record in rows:
            key, value, headers, at = record
            try:
                if headers or at:
                    produce(topic, value, key, timestamp=at, headers=headers)
                else:
                    produce(topic, value, key)
            except BufferError:
                _make_room(producer, topic, record)
            handed += 1
            handed_bytes += (len(value) if value else 0) + (len(key) if key else 0)
            if handed % LOOK_EVERY == 0:
                producer.poll(0)
                if delivery.failed:
                    break
                watch(handed)
    except BadRow as error:
        return error
    except library().KafkaException as error:
        return CommandError(f"record {handed + 1:,} was refused ({wording(error.args[0])})")
    except KeyboardInterrupt:
        return Interrupted("interrupted")
    finally:
        delivery.handed, delivery.handed_bytes = handed, handed_bytes
    return None


def _make_room(producer: Producer, topic: str, record: Record) -> None:
    """The queue is full: wait for the broker to take something of it."""
    key, value, headers, at = record
    while True:
        producer.poll(0.05)
        try:
            producer.produce(topic, value, key, timestamp=at, headers=headers)
        except BufferError:
            continue
        return


def _drain(producer: Producer, delivery: Delivery, bar: Progress) -> int:
    """Wait until all is delivered or given up; return how many records are neither."""
    deadline = time.monotonic() + DELIVERY_MS / 1000 + 5
    remaining = len(producer)
    while remaining and time.monotonic() < deadline:
        try:
            remaining = producer.flush(0.2)
        except KeyboardInterrupt:
            break
        bar.update(delivery.handed - remaining, 1.0)
    return remaining
