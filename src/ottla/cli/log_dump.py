"""`ottla log dump`: what is in the files of a log, for reading or as JSON.

Owns the printing. Shows what is there, sound or not; judging is `log verify`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ottla.cli.errors import BadInput, CommandError
from ottla.cli.log_files import (
    INDEX_ENTRY,
    TIME_ENTRY,
    PartitionFiles,
    index_entries,
    mapped,
    partition_at,
    partitions_under,
    snapshot_entries,
    time_entries,
    txn_entries,
    unpadded,
)
from ottla.cli.render import Row, brief, counted, json_line, object_line, time_text
from ottla.coordinator.entries import offsets_topic, transaction_log
from ottla.protocol.primitives import CodecError
from ottla.records.batch import HEADER_SIZE, BatchView, RecordError, batch_length, crc_ok
from ottla.records.reader import records_of

if TYPE_CHECKING:
    from ottla.cli import arguments

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
BRIEF_CHARS = 100
_ENTRIES = {
    "__consumer_offsets": offsets_topic.decode_entry,
    "__transaction_state": transaction_log.decode_entry,
}
TEXT_FILES = ("leader-epoch-checkpoint", "partition.metadata", "meta.properties")


def run(options: arguments.LogDump) -> int:
    """Print one file, or the segments under a directory. Raises BadInput, CommandError."""
    as_json = options.json
    out = sys.stdout.buffer
    if os.path.isdir(options.path):
        for files in partitions_under(options.path)[0]:
            for base_offset in files.segments():
                path = files.file(base_offset, ".log")
                if not as_json:
                    out.write(f"{path}\n".encode())
                out.writelines(_segment(path, options.records, as_json))
    else:
        out.writelines(_file(options.path, options.records, as_json))
    out.flush()
    return 0


def _file(path: str, records: bool, as_json: bool) -> Iterator[bytes]:
    suffix = os.path.splitext(path)[1]
    name = os.path.basename(path)
    if as_json and suffix != ".log":
        raise BadInput(f"--json is for records; try: ottla log dump {path}")
    try:
        if suffix == ".log":
            yield from _segment(path, records, as_json)
        elif suffix in {".index", ".timeindex", ".txnindex", ".snapshot"}:
            for line in _entries(path, suffix):
                yield f"{line}\n".encode()
        elif name in TEXT_FILES or name.endswith("-checkpoint"):
            yield bytes(mapped(path)).rstrip(b"\n") + b"\n"
        else:
            raise BadInput(
                f"{path} is no file of a log; try a .log, .index, .timeindex, .txnindex, "
                ".snapshot or checkpoint file"
            )
    except OSError as error:
        raise BadInput(f"can't read {path}: {error.strerror}; try another file") from None


def _entries(path: str, suffix: str) -> Iterator[str]:
    data = mapped(path)
    stem = os.path.basename(path).removesuffix(suffix)
    base_offset = int(stem) if stem.isdecimal() else 0
    if suffix == ".index":
        for entry in index_entries(unpadded(data, INDEX_ENTRY.size)):
            yield f"offset {base_offset + entry.relative_offset}  byte {entry.position}"
    elif suffix == ".timeindex":
        for stamp in time_entries(unpadded(data, TIME_ENTRY.size)):
            offset, when = base_offset + stamp.relative_offset, time_text(stamp.timestamp)
            yield f"timestamp {stamp.timestamp} ({when})  offset {offset}"
    elif suffix == ".txnindex":
        for aborted in txn_entries(bytes(data)):
            yield (
                f"aborted  producer {aborted.producer_id}  offsets {aborted.first_offset} to "
                f"{aborted.last_offset}  last stable offset {aborted.last_stable_offset}"
            )
    else:
        for one in snapshot_entries(bytes(data)):
            yield (
                f"producer {one.producer_id}  epoch {one.epoch}  last sequence "
                f"{one.last_sequence}  last offset {one.last_offset}  offset delta "
                f"{one.offset_delta}  timestamp {one.timestamp}  coordinator epoch "
                f"{one.coordinator_epoch}  transaction from {one.txn_first_offset}"
            )


def _segment(path: str, records: bool, as_json: bool) -> Iterator[bytes]:
    """The batches of one segment as lines. Control batches aren't records: not in JSON."""
    partition = partition_at(os.path.dirname(os.path.abspath(path)))
    view = memoryview(mapped(path))
    at = 0
    while len(view) - at >= HEADER_SIZE:
        length = batch_length(view, at)
        batch = BatchView(view, at)
        if batch.magic != 2 or not HEADER_SIZE <= length <= len(view) - at:
            break
        if not as_json:
            yield f"{batch_line(batch, at)}\n".encode()
        elif not records:
            yield object_line(batch_fields(batch, partition, at)).encode()
        if records and not (as_json and batch.is_control):
            try:
                for record in records_of(batch):
                    row = Row(
                        partition.topic,
                        partition.partition,
                        record.offset,
                        record.timestamp,
                        record.key,
                        record.value,
                        record.headers,
                    )
                    text = record_text(row) if batch.is_control else _text(row)
                    yield json_line(row) if as_json else f"  {text}\n".encode()
            except RecordError as error:
                sys.stderr.write(f"{path}: offset {batch.base_offset}, byte {at}: {error}\n")
        at += length
    if at < len(view):
        raise CommandError(
            f"{path}: from byte {at} on there is no whole batch, {len(view) - at:,} bytes; "
            f"try: ottla log verify {partition.path}"
        )


def batch_line(batch: BatchView, at: int) -> str:
    """One line about a batch: place, size, codec, epoch, producer, flags, checksum."""
    codec = CODECS[batch.codec] if batch.codec < len(CODECS) else f"codec {batch.codec}"
    parts = [
        f"offsets {batch.base_offset} to {batch.last_offset}",
        f"byte {at}",
        f"{batch.length:,} bytes",
        counted(batch.records_count, "record"),
        codec,
        f"epoch {batch.leader_epoch}",
        f"until {time_text(batch.max_timestamp)}",
    ]
    if batch.producer_id >= 0:
        parts.append(
            f"producer {batch.producer_id} epoch {batch.producer_epoch} "
            f"sequence {batch.base_sequence}"
        )
    if batch.log_append_time:
        parts.append("append time")
    if batch.is_transactional:
        parts.append("transactional")
    if batch.is_control:
        parts.append("control")
    parts.append("crc ok" if crc_ok(batch.view) else "CRC WRONG")
    return "  ".join(parts)


def batch_fields(batch: BatchView, partition: PartitionFiles, at: int) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "topic": partition.topic,
        "partition": partition.partition,
        "base_offset": batch.base_offset,
        "last_offset": batch.last_offset,
        "position": at,
        "size": batch.length,
        "records": batch.records_count,
        "codec": CODECS[batch.codec] if batch.codec < len(CODECS) else batch.codec,
        "leader_epoch": batch.leader_epoch,
        "max_timestamp": batch.max_timestamp,
        "producer_id": batch.producer_id,
        "producer_epoch": batch.producer_epoch,
        "base_sequence": batch.base_sequence,
        "transactional": batch.is_transactional,
        "control": batch.is_control,
        "crc_ok": crc_ok(batch.view),
    }


def _text(row: Row) -> str:
    """A record as `record_text` has it; of a coordinator's topic, what it says."""
    decode = _ENTRIES.get(row.topic)
    if decode is None or row.key is None:
        return record_text(row)
    try:
        entry = decode(row.key, row.value)
    except CodecError:
        return record_text(row)
    if entry is None:  # of a kind that is not known
        return record_text(row)
    said = "deleted" if entry.value is None else repr(entry.value)
    return f"{row.offset}  {time_text(row.timestamp)}  {entry.key!r}  {said}"


def record_text(row: Row) -> str:
    """One record on one line, shortened: offset, time, key, value, headers."""
    text = (
        f"{row.offset}  {time_text(row.timestamp)}  {brief(row.key, BRIEF_CHARS)}  "
        f"{brief(row.value, BRIEF_CHARS)}"
    )
    headers = ", ".join(f"{name}={brief(content, 40)}" for name, content in row.headers)
    return f"{text}  [{headers}]" if headers else text
