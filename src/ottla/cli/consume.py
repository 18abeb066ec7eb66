"""`ottla consume`: the records of a topic on stdout, by assignment, without a group.

Owns where reading begins and ends. Output goes through one buffer, flushed whenever we wait.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, cast

from ottla.cli.client import (
    PATIENCE_S,
    Cluster,
    connect,
    existing_topic,
    library,
    no_answer,
    wording,
)
from ottla.cli.errors import BadInput, CommandError
from ottla.cli.render import RENDERERS, Format, Row
from ottla.cli.where import Start, parse_start
from ottla.host.terminal import escaped

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

    from ottla.cli import arguments

BATCH_RECORDS = 1000
SILENCE_S = 30.0
"""How long there may be nothing from a partition that has more, before that is an error."""
NOTE_AFTER_S = 5.0
"""And before a person who waits is told: librdkafka tries again and again without a word."""


def run(options: arguments.Consume) -> int:
    """Print what was asked for. Raises CommandError if it can't be read."""
    start = parse_start(options.start, int(time.time() * 1000))
    cluster = connect(options.bootstrap, options.setting)
    consumer = cluster.consumer(
        **{
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 100,
            # How long librdkafka fetches nothing of a partition once its queue was full; a
            # second by default, which is longer than we take to empty it.
            "fetch.queue.backoff.ms": 10,
        }
    )
    try:
        numbers = _partitions(consumer, cluster, options)
        try:
            ends = _ends(consumer, options.topic, numbers)
            places = _places(consumer, options, start, ends)
        except library().KafkaException as error:
            raise CommandError(no_answer(cluster, error)) from None
        if not options.follow:
            places = {n: at for n, at in places.items() if at < ends[n][1]}
        _print(consumer, cluster, options, places, {n: ends[n][1] for n in places})
    finally:
        consumer.close()
    return 0


def _partitions(consumer: Consumer, cluster: Cluster, options: arguments.Consume) -> list[int]:
    numbers = sorted(existing_topic(consumer, cluster, options.topic).partitions)
    if options.partition is None:
        return numbers
    if options.partition not in numbers:
        raise BadInput(
            f"{options.topic} has no partition {options.partition}; try: --partition "
            + (f"0 to {numbers[-1]}" if len(numbers) > 1 else "0")
        )
    return [options.partition]


def _ends(consumer: Consumer, topic: str, numbers: list[int]) -> dict[int, tuple[int, int]]:
    """First and end offset (exclusive) of each partition, now."""
    kafka = library()
    ends = {}
    for number in numbers:
        found = consumer.get_watermark_offsets(
            kafka.TopicPartition(topic, number), timeout=PATIENCE_S, cached=False
        )
        if found is None:
            raise CommandError(f"the leader of {topic}-{number} doesn't answer; try again")
        ends[number] = found
    return ends


def _places(
    consumer: Consumer,
    options: arguments.Consume,
    start: Start,
    ends: dict[int, tuple[int, int]],
) -> dict[int, int]:
    """The offset at which to begin in each partition. What retention took is skipped."""
    if start.kind == "beginning":
        return {number: first for number, (first, _) in ends.items()}
    if start.kind == "end":
        return {number: end for number, (_, end) in ends.items()}
    if start.kind == "time":
        asked = [library().TopicPartition(options.topic, number, start.value) for number in ends]
        found = consumer.offsets_for_times(asked, timeout=PATIENCE_S)
        # Negative: nothing is that young. Beginning at the end leaves nothing but what follows.
        return {
            place.partition: place.offset if place.offset >= 0 else ends[place.partition][1]
            for place in found
        }
    furthest = max(end for _, end in ends.values())
    if start.value > furthest:
        raise BadInput(
            f"offset {start.value} lies beyond the end of {options.topic}; try: --from with at "
            f"most {furthest}"
        )
    return {number: min(max(start.value, first), end) for number, (first, end) in ends.items()}


def _print(
    consumer: Consumer,
    cluster: Cluster,
    options: arguments.Consume,
    places: dict[int, int],
    ends: dict[int, int],
) -> None:
    """Print until every partition's end, or N records, or for ever."""
    kafka = library()
    assignment = [kafka.TopicPartition(options.topic, n, at) for n, at in places.items()]
    if not assignment:
        return
    consumer.assign(assignment)
    behind = {number for number, at in places.items() if at < ends[number]}
    left = options.number
    form = Format.JSON if options.json else options.format
    render, out = RENDERERS[form], sys.stdout.buffer
    heard, noted = time.monotonic(), False
    while (behind or options.follow) and left != 0:
        room = BATCH_RECORDS if left is None else min(BATCH_RECORDS, left)
        messages = consumer.consume(room, timeout=0.05)
        lines = []
        for message in messages:
            number, offset = cast(int, message.partition()), cast(int, message.offset())
            if message.error() is not None:
                if _is_end(message):
                    behind.discard(number)
                continue
            if offset + 1 >= ends[number]:
                behind.discard(number)
            if options.follow or offset < ends[number]:
                lines.append(render(_row(message)))
        out.writelines(lines)
        if left is not None:
            left -= len(lines)
        if messages:
            heard = time.monotonic()
            continue
        out.flush()
        if behind and not noted and time.monotonic() - heard > NOTE_AFTER_S:
            noted = True
            _note(_silence(cluster, options.topic, behind, NOTE_AFTER_S) + "; still trying")
        if behind and not options.follow and time.monotonic() - heard > SILENCE_S:
            raise CommandError("gave up: " + _silence(cluster, options.topic, behind, SILENCE_S))
    out.flush()


def _silence(cluster: Cluster, topic: str, behind: set[int], seconds: float) -> str:
    """What is missing, and what was last heard of why, if anything."""
    first = f"{topic}-{min(behind)}"
    which = first if len(behind) == 1 else f"{first} and {len(behind) - 1} more"
    trouble = f" ({cluster.last_trouble})" if cluster.last_trouble else ""
    return f"nothing from {which} for {seconds:.0f} s, though there is more to read{trouble}"


def _note(sentence: str) -> None:
    sys.stderr.write(f"ottla: {escaped(sentence)}\n")


def _is_end(message: Message) -> bool:
    """Whether this is the end of its partition; anything else wrong is raised in one sentence."""
    error: Any = message.error()
    kafka = library().KafkaError
    if error.code() == kafka._PARTITION_EOF:
        return True
    if error.code() in {kafka._TRANSPORT, kafka._ALL_BROKERS_DOWN, kafka._TIMED_OUT}:
        return False  # librdkafka tries again; silence has its own limit
    raise CommandError(f"{message.topic()}-{message.partition()}: {wording(error)}")


def _row(message: Any) -> Row:
    return Row(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        message.headers() or (),
    )
