"""Kafka's small text files of a log directory, to and from text.

Owns their formats: checkpoints, partition.metadata, meta.properties, the clean-shutdown marker.
Must not touch a disk: whoever calls replaces files whole (ReplaceFile). A decoder returns None for
a file that can't be believed; the caller has a case for it.

Kafka's formats have no checksum, and a digit gone wrong in a log's start would hide records without
a word. So ours carry one where Kafka's reader passes it over: in an offset checkpoint a last row
for a topic that can't exist, in partition.metadata a third line, in meta.properties a comment; in a
leader-epoch-checkpoint, whose rows all count, blanks and tabs at the end of the last one.
Files without it are believed as Kafka wrote them.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ottla.core.model import LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.core.value import Value
from ottla.records.crc import crc32c

RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
HIGH_WATERMARKS = "replication-offset-checkpoint"
RETENTION_CLOCK = "retention-clock-checkpoint"
CLEANED = "cleaner-offset-checkpoint"
ABORTED = "aborted-index-checkpoint"
QUARANTINE = "quarantine"
PARTITION_METADATA = "partition.metadata"
META_PROPERTIES = "meta.properties"
CLEAN_MARKER = ".kafka_cleanshutdown"

_CHECKSUM_ROW = "~checksum"
"""Where a topic's name would stand; no topic's has a tilde."""
_CHECKSUM_LINE = "checksum"
_CHECKSUM_COMMENT = "# checksum="
_VERSION = "0"
_OFFSET_MAX = (1 << 63) - 1


def _rows(raw: bytes, columns: int) -> list[list[str]] | None:
    """The rows of a checkpoint: version, count, then that many rows. None if it is not one."""
    try:
        lines = raw.decode().split("\n")
    except UnicodeDecodeError:
        return None
    if len(lines) < 3 or lines[-1] != "" or lines[0] != _VERSION:
        return None
    rows = [line.split(" ") for line in lines[2:-1]]
    if lines[1] != str(len(rows)) or any(len(row) != columns for row in rows):
        return None
    return rows


def _text(rows: Iterable[str]) -> bytes:
    listed = list(rows)
    return "".join(f"{line}\n" for line in (_VERSION, str(len(listed)), *listed)).encode()


def _number(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    value = int(text)
    return value if value <= _OFFSET_MAX else None


def encode_offsets(offsets: Mapping[TopicPartition, Offset]) -> bytes:
    """An offset checkpoint: one `topic partition offset` a line, and the checksum of all."""
    rows = [f"{name.topic} {name.partition} {offset}" for name, offset in offsets.items()]
    return _text([*rows, f"{_CHECKSUM_ROW} 0 {_checksum_of(rows)}"])


def _checksum_of(lines: Iterable[str]) -> int:
    return crc32c("\n".join(lines).encode())


def decode_offsets(raw: bytes | None) -> dict[TopicPartition, Offset] | None:
    """What an offset checkpoint says. An empty file is what Kafka makes first: nothing known."""
    if not raw:
        return {}
    rows = _rows(raw, 3)
    if rows is None:
        return None
    if rows and rows[-1][0] == _CHECKSUM_ROW:
        checksum = rows.pop()[2]
        if checksum != str(_checksum_of(" ".join(row) for row in rows)):
            return None
    found: dict[TopicPartition, Offset] = {}
    for topic, partition, offset in rows:
        number, at = _number(partition), _number(offset)
        if number is None or at is None:
            return None
        found[TopicPartition(topic, number)] = Offset(at)
    return found


AbortedSeals: TypeAlias = Mapping[Offset, tuple[int, int]]
"""Which segments of a log have an index of aborted transactions: entries in it, their CRC-32C."""


def encode_aborted_seals(seals: Mapping[TopicPartition, AbortedSeals]) -> bytes:
    """aborted-index-checkpoint, ottla's own: `topic partition base_offset entries crc` a line."""
    rows = [
        f"{name.topic} {name.partition} {base} {count} {crc}"
        for name, of_log in seals.items()
        for base, (count, crc) in of_log.items()
    ]
    return _text([*rows, f"{_CHECKSUM_ROW} 0 0 0 {_checksum_of(rows)}"])


def decode_aborted_seals(
    raw: bytes | None,
) -> dict[TopicPartition, dict[Offset, tuple[int, int]]] | None:
    """What an aborted-index-checkpoint says; None if it is missing, or can't be believed."""
    rows = _rows(raw or b"", 5)
    if not rows or rows[-1][:4] != [_CHECKSUM_ROW, "0", "0", "0"]:
        return None
    checksum = rows.pop()[4]
    if checksum != str(_checksum_of(" ".join(row) for row in rows)):
        return None
    found: dict[TopicPartition, dict[Offset, tuple[int, int]]] = {}
    for topic, *texts in rows:
        numbers = [number for number in map(_number, texts) if number is not None]
        if len(numbers) < 4:
            return None
        partition, base, count, crc = numbers
        found.setdefault(TopicPartition(topic, partition), {})[Offset(base)] = count, crc
    return found


def encode_clock(now_ms: int) -> bytes:
    """retention-clock-checkpoint, ottla's own: what time retention went by, in ms since 1970."""
    return _text([str(now_ms)])


def decode_clock(raw: bytes | None) -> int | None:
    """What a retention-clock-checkpoint says. A digit gone wrong only makes deletions late."""
    rows = _rows(raw or b"", 1)
    return _number(rows[0][0]) if rows else None


def is_sealed(raw: bytes | None) -> bool:
    """Whether an offset checkpoint is sound and one of ours: it has a checksum, and that fits."""
    return bool(raw) and _CHECKSUM_ROW.encode() in (raw or b"") and decode_offsets(raw) is not None


def encode_epochs(entries: Iterable[tuple[LeaderEpoch, Offset]]) -> bytes:
    """A leader-epoch-checkpoint: one `epoch start_offset` a line, and the checksum of all."""
    rows = [f"{epoch} {start}" for epoch, start in entries]
    if rows:
        rows[-1] += _in_blanks(_checksum_of(rows))
    return _text(rows)


def _in_blanks(checksum: int) -> str:
    return " " + f"{checksum:032b}".replace("0", " ").replace("1", "\t")


def decode_epochs(raw: bytes | None) -> list[tuple[LeaderEpoch, Offset]] | None:
    """What a leader-epoch-checkpoint says; None unless both columns rise."""
    if not raw:
        return []
    text = raw[:-1].decode(errors="replace")
    bare = text.rstrip(" \t")
    if bare != text and text != bare + _in_blanks(_checksum_of(bare.split("\n")[2:])):
        return None
    rows = _rows(bare.encode() + raw[-1:], 2)
    if rows is None:
        return None
    entries: list[tuple[LeaderEpoch, Offset]] = []
    for left, right in rows:
        epoch, start = _number(left), _number(right)
        if epoch is None or start is None:
            return None
        if entries and not (entries[-1][0] < epoch and entries[-1][1] < start):
            return None
        entries.append((LeaderEpoch(epoch), Offset(start)))
    return entries


def encode_quarantine(offset: Offset) -> bytes:
    """quarantine, ottla's own, in a partition's directory: from this offset on there is damage."""
    return _text([f"{offset} {_checksum_of([str(offset)])}"])


def decode_quarantine(raw: bytes | None) -> Offset | None:
    """Where a quarantine begins; None if it can't be told."""
    rows = _rows(raw or b"", 2)
    if rows is None or len(rows) != 1 or rows[0][1] != str(_checksum_of(rows[0][:1])):
        return None
    found = _number(rows[0][0])
    return None if found is None else Offset(found)


def uuid_text(raw: bytes) -> str:
    """16 bytes as Kafka writes a Uuid: base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def uuid_bytes(text: str) -> bytes | None:
    """The 16 bytes of a Uuid in Kafka's form; None if it is not one."""
    try:
        raw = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == 16 else None


def encode_partition_metadata(topic_id: TopicId) -> bytes:
    """partition.metadata: which topic's incarnation the directory belongs to (KIP-516)."""
    text = uuid_text(topic_id)
    return f"version: 0\ntopic_id: {text}\n{_CHECKSUM_LINE}: {_checksum_of([text])}".encode()


def decode_partition_metadata(raw: bytes | None) -> TopicId | None:
    """The topic id in a partition.metadata; None if it has none, or can't be believed."""
    fields = _fields(raw, ": ")
    if fields is None or fields.get("version") != "0":
        return None
    text = fields.get("topic_id", "")
    checksum = str(_checksum_of([text]))
    if fields.get(_CHECKSUM_LINE, checksum) != checksum:
        return None
    found = uuid_bytes(text)
    return None if found is None else TopicId(found)


def _fields(raw: bytes | None, separator: str) -> dict[str, str] | None:
    if raw is None:
        return None
    try:
        lines = raw.decode().splitlines()
    except UnicodeDecodeError:
        return None
    fields: dict[str, str] = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            name, found, value = line.partition(separator)
            if not found:
                return None
            fields[name.strip()] = value.strip()
    return fields


class MetaProperties(Value):
    """meta.properties: whose directory this is. Ids in Kafka's text form."""

    cluster_id: str
    node_id: int
    directory_id: str

    def encode(self) -> bytes:
        """The file's content."""
        lines = [
            "version=1",
            f"cluster.id={self.cluster_id}",
            f"node.id={self.node_id}",
            f"directory.id={self.directory_id}",
        ]
        checksum = f"{_CHECKSUM_COMMENT}{_checksum_of(lines)}"
        return "".join(f"{line}\n" for line in (*lines, checksum)).encode()


def decode_meta_properties(raw: bytes | None) -> MetaProperties | None:
    """What a meta.properties says; None if it is missing, or can't be believed."""
    fields = _fields(raw, "=")
    head, comment, checksum = (raw or b"").decode(errors="replace").rpartition(_CHECKSUM_COMMENT)
    if comment and checksum.strip() != str(_checksum_of(head.splitlines())):
        return None
    if fields is None or fields.get("version") != "1":
        return None
    node_id = _number(fields.get("node.id", ""))
    if node_id is None or "cluster.id" not in fields:
        return None
    return MetaProperties(fields["cluster.id"], node_id, fields.get("directory.id", ""))


def encode_clean_marker(broker_epoch: int) -> bytes:
    """.kafka_cleanshutdown: everything in the directory was synced before this was written."""
    return json.dumps({"version": 0, "brokerEpoch": broker_epoch}, separators=(",", ":")).encode()


def decode_clean_marker(raw: bytes | None) -> int | None:
    """The broker epoch of a clean stop; None if the stop was not clean, or we can't be sure."""
    if raw is None:
        return None
    try:
        fields = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("version") != 0:
        return None
    epoch = fields.get("brokerEpoch")
    return epoch if isinstance(epoch, int) else None
