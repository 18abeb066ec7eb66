"""`ottla txn`: list and describe transactions, and abort one that hangs in a partition.

Owns what these commands print and refuse. What is asked, and of whom, is in open_transactions.py.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from ottla.cli.asking import Brokers, said
from ottla.cli.client import connect
from ottla.cli.errors import BadInput, CommandError, nearest
from ottla.cli.open_transactions import Open, described, listed, open_in
from ottla.cli.render import counted, object_line, table, time_text
from ottla.host.terminal import BOLD, DIM, escaped, painted
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)

if TYPE_CHECKING:
    from ottla.cli import arguments

STATES = {
    "ongoing": "Ongoing",
    "prepare-commit": "PrepareCommit",
    "prepare-abort": "PrepareAbort",
    "complete-commit": "CompleteCommit",
    "complete-abort": "CompleteAbort",
    "empty": "Empty",
}
_MARKERS_VERSION = 1


def _brokers(options: arguments.Connection) -> Brokers:
    return Brokers(options.bootstrap, connect(options.bootstrap, options.setting).extra)


def show_list(options: arguments.TxnList) -> int:
    """The transactional ids of the cluster, and how far each is."""
    states = []
    for word in options.state:
        if word.lower() not in STATES:
            meant = nearest(word.lower(), list(STATES)) or ", ".join(STATES)
            raise BadInput(f"there is no state {word!r}; try: --state {meant}")
        states.append(STATES[word.lower()])
    older_ms = -1 if options.older_than is None else int(options.older_than * 1000)
    with _brokers(options) as brokers:
        found = listed(brokers, states=states, older_ms=older_ms)
    rows = [("transactional id", "producer", "state")]
    for one in found:
        if options.json:
            sys.stdout.write(object_line(one._asdict() | {"state": _word(one.state)}))
        rows.append((one.transactional_id, str(one.producer_id), _word(one.state)))
    if not options.json and len(rows) > 1:
        sys.stdout.writelines(table(rows, _heading))
    return 0


def _word(state: str) -> str:
    """A state as the command line has it."""
    return next((word for word, name in STATES.items() if name == state), state.lower())


def _heading(line: str) -> str:
    return painted(line, DIM, sys.stdout)


def describe(options: arguments.TxnDescribe) -> int:
    """One transactional id: its producer, its state, since when, and where."""
    with _brokers(options) as brokers:
        found = described(brokers, options.transactional_id)
        if isinstance(found, ErrorCode):
            known = [one.transactional_id for one in listed(brokers)]
            meant = nearest(options.transactional_id, known)
            raise BadInput(
                f"there is no transactional id {options.transactional_id!r}; try: "
                f"{meant or 'ottla txn list'}"
            )
    places = [(one.topic, number) for one in found.topics for number in sorted(one.partitions)]
    since_ms = found.transaction_start_time_ms
    if options.json:
        fields = {
            "transactional_id": found.transactional_id,
            "producer_id": found.producer_id,
            "producer_epoch": found.producer_epoch,
            "state": _word(found.transaction_state),
            "timeout_ms": found.transaction_timeout_ms,
            "since_ms": since_ms if since_ms >= 0 else None,
            "partitions": [f"{topic}-{number}" for topic, number in sorted(places)],
        }
        sys.stdout.write(object_line(fields))
        return 0
    heading = f"{escaped(found.transactional_id)}: {_word(found.transaction_state)}, producer "
    heading += f"{found.producer_id} in epoch {found.producer_epoch}"
    sys.stdout.write(painted(heading, BOLD, sys.stdout) + "\n")
    if since_ms >= 0 and _word(found.transaction_state) == "ongoing":
        sys.stdout.write(f"  since {_since(since_ms)}")
        sys.stdout.write(f", aborted after {found.transaction_timeout_ms / 1000:g} s\n")
    elif since_ms >= 0:  # its last one, which no timeout ends any more
        sys.stdout.write(f"  begun {_since(since_ms)}\n")
    for topic, number in sorted(places):
        sys.stdout.write(f"  {topic}-{number}\n")
    return 0


def _since(since_ms: int) -> str:
    """A time, and how long ago that is by this machine's clock."""
    ago_s = max(time.time() - since_ms / 1000, 0.0)
    return f"{time_text(since_ms)} ({ago_s:.0f} s)"


# --- abort ---------------------------------------------------------------------------------


def abort(options: arguments.TxnAbort) -> int:
    """End a transaction in one partition, or with no --execute say what that would do."""
    topic, colon, number = options.place.rpartition(":")
    if not colon or not topic or not number.isdecimal():
        raise BadInput(
            f"abort takes TOPIC:PARTITION, not {options.place!r}; try: {options.place}:0"
        )
    with _brokers(options) as brokers:
        _must_be_there(brokers, topic, int(number))
        one = _chosen(options, open_in(brokers, topic, [int(number)]))
        if options.execute:
            _write_marker(brokers, one)
    if options.json:
        sys.stdout.write(object_line(fields(one) | {"done": options.execute}))
        return 0
    what = f"the transaction of producer {one.producer_id} in {options.place}"
    what += f" from offset {one.first_offset} on"
    sys.stdout.write(f"{'aborted' if options.execute else 'would abort'} {what}\n")
    if one.transactional_id is not None:
        sys.stdout.write(
            f"{one.transactional_id!r} is not done with it: it may yet write to other partitions, "
            "and its coordinator ends it at its timeout\n"
        )
    if not options.execute:
        sys.stdout.write("nothing was changed; --execute does it\n")
    return 0


def _must_be_there(brokers: Brokers, topic: str, number: int) -> None:
    leaders = brokers.leaders(topic)
    if not leaders:
        raise BadInput(f"there is no topic {topic!r}; try: ottla topic list")
    if number not in leaders:
        raise BadInput(f"{topic} has no partition {number}; try: {topic}:{max(leaders)}")


def _chosen(options: arguments.TxnAbort, found: list[Open]) -> Open:
    """The one that is meant. Raises CommandError where there is none, or more than one."""
    if options.start_offset is not None:
        found = [one for one in found if one.first_offset == options.start_offset]
    if options.producer_id is not None:
        found = [one for one in found if one.producer_id == options.producer_id]
    if not found:
        raise CommandError(
            f"no such transaction is open in {options.place}; try: ottla topic describe "
            f"{options.place.rpartition(':')[0]}"
        )
    if len(found) > 1:
        starts = ", ".join(str(one.first_offset) for one in found)
        raise BadInput(
            f"{counted(len(found), 'transaction')} are open in {options.place}, from offsets "
            f"{starts} on; try: --start-offset {found[0].first_offset}"
        )
    return found[0]


def _write_marker(brokers: Brokers, one: Open) -> None:
    """As Kafka's admin clients do: the marker counts as written by the coordinator that the
    partition heard of last."""
    marker = WritableTxnMarker(
        producer_id=one.producer_id,
        producer_epoch=one.producer_epoch,
        transaction_result=False,
        topics=[WritableTxnMarkerTopic(name=one.topic, partition_indexes=[one.partition])],
        coordinator_epoch=max(one.coordinator_epoch, 0),
    )
    request = WriteTxnMarkersRequest(markers=[marker])
    leader = brokers.leaders(one.topic)[one.partition]
    answer = brokers.ask(request, _MARKERS_VERSION, WriteTxnMarkersResponse, leader)
    code = answer.markers[0].topics[0].partitions[0].error_code
    if code:
        raise CommandError(f"{one.topic}-{one.partition} was written no marker: {said(code)}")


def fields(one: Open) -> dict[str, Any]:
    """What `--json` says of an open transaction."""
    return {
        "topic": one.topic,
        "partition": one.partition,
        "producer_id": one.producer_id,
        "producer_epoch": one.producer_epoch,
        "first_offset": one.first_offset,
        "transactional_id": one.transactional_id,
        "since_ms": one.started_ms if one.started_ms is not None else one.last_ms,
    }


def _way_to(name: str) -> str:
    """A command to be copied. Clients choose the id: what a terminal would obey is not repeated."""
    if not name.isprintable():
        return "ottla txn list"
    return f"ottla txn describe {'-- ' if name.startswith('-') else ''}{shlex.quote(name)}"


def holding_lines(one: Open, records: int) -> str:
    """What `topic describe` says of a transaction that holds back readers, as wide as the terminal;
    the command to try is the last line, however long, so that it can be copied."""
    who = f"producer {one.producer_id}"
    if one.transactional_id is not None:
        who = f"{one.transactional_id!r} ({who})"
        since = f"open since {_since(one.started_ms or one.last_ms)}"
        way = _way_to(one.transactional_id)
    else:
        since = f"which hangs: no coordinator knows of it; it last wrote {_since(one.last_ms)}"
        way = f"ottla txn abort {one.topic}:{one.partition} --start-offset {one.first_offset}"
    said = (
        f"partition {one.partition} holds back {counted(records, 'record')} from offset "
        f"{one.first_offset} on, behind a transaction of {who}, {since}; try:"
    )
    width = shutil.get_terminal_size().columns
    lines = textwrap.wrap(
        said, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join([*lines, f"  {way}\n"])
