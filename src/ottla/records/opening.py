"""Opening a produced batch: its records walked, and packed anew, where its topic asks for it.

Owns what `record.validation=records` and `compression.type` do to a batch. Everything here can
be pickled, because a large batch is opened by a worker. No topic needs it by default.
"""

from __future__ import annotations

from typing import Final

from ottla.core.ports import Buffer
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView, RecordError
from ottla.records.builder import recompress
from ottla.records.compress import NONE
from ottla.records.reader import payload
from ottla.records.validate import Rejected, Rules, check_records

_INLINE_BYTES_MAX: Final = 16 << 10
_INLINE_DECOMPRESSED_MAX: Final = 64 << 10
_INLINE_RECORDS_MAX: Final = 256
"""About what can be opened in the time that handing a batch to the worker takes."""


class Opened(Value):
    """What was found in a batch: its true greatest timestamp, and itself packed anew if asked."""

    max_timestamp: int
    packed: bytes | None

    def apply(self, batch: BatchView) -> BatchView:
        """The batch to append: `batch` itself, corrected, or the one that takes its place."""
        if self.packed is not None:
            # A copy, because a broker-side codec means that the producer's bytes are not kept.
            batch = BatchView(memoryview(bytearray(self.packed)))
        if batch.max_timestamp != self.max_timestamp:
            batch.stamp_max_timestamp(self.max_timestamp)
        return batch


class Opening(Value):
    """How a topic's batches are opened. `codec` None: as the producer packed them."""

    rules: Rules
    codec: int | None
    level: int | None

    def is_small(self, batch: BatchView) -> bool:
        """Whether opening it here takes less than handing it to a worker."""
        if batch.length > _INLINE_BYTES_MAX or batch.records_count > _INLINE_RECORDS_MAX:
            return False
        if batch.codec == NONE:
            return True
        try:
            # A few bytes may stand for very many: see before believing (H51).
            payload(batch, _INLINE_DECOMPRESSED_MAX)
        except RecordError:
            return False
        return True

    def open(self, batch: Buffer, now_ms: int) -> Rejected | Opened:
        """Walk the records if the rules say so, then pack them as the topic wants them."""
        view = BatchView(memoryview(batch))
        max_timestamp = view.max_timestamp
        if self.rules.walks:
            walked = check_records(view.view, self.rules, now_ms)
            if isinstance(walked, Rejected):
                return walked
            max_timestamp = walked
        packed = None
        if self.codec is not None and self.codec != view.codec:
            try:
                packed = recompress(view.view, self.codec, self.level, self.rules.decompressed_max)
            except RecordError as error:
                return Rejected(ErrorCode.INVALID_RECORD, str(error))
            if len(packed) > self.rules.message_max_bytes:
                return Rejected(
                    ErrorCode.MESSAGE_TOO_LARGE,
                    f"as compression.type asks the batch has {len(packed)} bytes, "
                    f"max.message.bytes is {self.rules.message_max_bytes}",
                )
            if len(packed) > self.rules.segment_bytes:
                return Rejected(ErrorCode.RECORD_LIST_TOO_LARGE)
        return Opened(max_timestamp, packed)


def open_batch(batch: bytes, opening: Opening, now_ms: int) -> Rejected | Opened:
    """`Opening.open` for a worker."""
    return opening.open(batch, now_ms)
