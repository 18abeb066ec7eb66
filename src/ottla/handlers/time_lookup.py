"""Which record of one batch is the first at or after a time: what the worker process is asked.

A module of its own, so that the worker imports no messages. Pure; must not be called on the loop
for a batch that is large or compressed.
"""

from __future__ import annotations

from ottla.core.model import Offset
from ottla.records.batch import BatchView, RecordError
from ottla.records.reader import frame_at, payload


def first_since(
    batch_bytes: bytes, timestamp: int, start: Offset, decompressed_max: int
) -> tuple[int, Offset] | None:
    """(timestamp, offset) of the first record at or after `timestamp` whose offset is >= `start`.

    None where no record is, or where the batch can't be read: under `record.validation=header` it
    may hold anything behind its header.
    """
    try:
        batch = BatchView(memoryview(batch_bytes), 0)
        data = payload(batch, decompressed_max)
        at = 0
        for _ in range(batch.records_count):
            frame = frame_at(data, at)
            at = frame.end
            if batch.log_append_time:
                time = batch.max_timestamp
            else:
                time = batch.base_timestamp + frame.timestamp_delta
            offset = Offset(batch.base_offset + frame.offset_delta)
            if time >= timestamp and offset >= start:
                return time, offset
    except RecordError:
        pass
    return None
