"""What a running node counts of itself: plain integers, added to where things happen.

Owns the counters and nothing else: no clock, no names for the outside, no locks. On the way of a
request one attribute and one addition take about 1 % of it, so what can be told from state that is
kept anyway is not counted, and every statement that counts there is one line that adds to something
called `tally`, or a name that ends so: `ottla bench counters` takes just those lines out to see
what they cost. Who reads them does so on the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

SAMPLE_EVERY: Final = 64
"""Of so many turns of the loop one is timed, and each request in it: a clock costs more than all
the counters together."""
CPU_SAMPLE_EVERY: Final = 4096
"""Of so many requests one has its CPU measured, too. To read a thread's CPU is a call at which a
busy kernel lets others run: every 64th time it took 0.8 µs from each request, and p99 rose from
70 µs to more than 400. A multiple of SAMPLE_EVERY."""

BUCKETS: Final = 28
"""Durations by powers of two from 1 µs on: the last begins at 67 s."""

CODECS: Final = 8
"""As many as the three bits of a batch's attributes can name (KIP-98 uses five)."""


class Durations:
    """A histogram of seconds, with what they add up to."""

    __slots__ = ("buckets", "count", "most_s", "sum_s")

    def __init__(self) -> None:
        self.count = 0
        self.sum_s = 0.0
        self.most_s = 0.0
        self.buckets = [0] * BUCKETS

    def add(self, seconds: float) -> None:
        self.count += 1
        self.sum_s += seconds
        self.most_s = max(self.most_s, seconds)
        microseconds = int(seconds * 1e6)
        self.buckets[min(max(microseconds, 0).bit_length(), BUCKETS - 1)] += 1

    def quantile(self, share: float) -> float:
        """Seconds that `share` of them did not exceed, rounded up to a power of two; 0 of none."""
        return quantile(self.buckets, share)


def quantile(buckets: Sequence[int], share: float) -> float:
    """The same of any buckets, such as the difference of two looks at a histogram."""
    wanted = share * sum(buckets)
    seen = 0
    for index, count in enumerate(buckets):
        seen += count
        if count and seen >= wanted:
            return float((1 << index) * 1e-6)
    return 0.0


class ApiTally:
    """Requests of one API, and how long those took that were timed.

    The time is that of decoding, handling and encoding on the loop; what a parked request waits
    for is not in it. `requests` is right once `NodeMetrics.settle` was called.
    """

    __slots__ = ("cpu_s", "cpu_timed", "name", "requests", "wall")

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.wall = Durations()
        self.cpu_s = 0.0  # of so many of them:
        self.cpu_timed = 0


class AskerTally:
    """Requests of one connection, which are not counted one by one.

    A connection mostly asks the same again and again, and knows how many requests it has taken,
    for the order of its answers. So it is enough to look when it turns to another API.
    """

    __slots__ = ("_among", "_of_api", "_until", "asked")

    def __init__(self) -> None:
        self.asked: Callable[[], int] = int
        """How many requests the connection has taken; 0 until somebody can say."""
        self._until = 0
        self._of_api: ApiTally | None = None
        self._among: set[AskerTally] | None = None

    def turn(self, among: set[AskerTally], of_api: ApiTally) -> None:
        """Count what was asked until now: the next requests are of this API."""
        asked, before = self.asked(), self._of_api
        if before is not None:
            before.requests += asked - self._until
        else:
            self._among = among
            among.add(self)
        self._until = asked
        self._of_api = of_api

    def settle(self) -> None:
        """Count what was asked until now."""
        if self._among is not None and self._of_api is not None:
            self.turn(self._among, self._of_api)

    def leave(self) -> None:
        """The connection ends. May be repeated."""
        if self._among is not None:
            self.settle()
            self._among.discard(self)
            self._of_api = ApiTally("")  # should the last run of requests turn once more


class PartitionTally:
    """What one partition took in and gave out since the node started.

    Records and bytes that came in are not counted: where the log ends now says how many. Nor are
    batches: those of one record are cheapest, and as many as the records that are no more of one.
    """

    __slots__ = ("bytes_out", "cold", "fetches", "first_byte", "first_offset", "more", "packed")

    def __init__(self, first_offset: int = 0, first_byte: int = 0) -> None:
        self.first_offset = first_offset  # where the log ended then
        self.first_byte = first_byte
        self.more = 0  # records but for the first of each batch
        self.packed = [0] * CODECS  # batches by codec, but for those that are not compressed
        self.fetches = 0  # that found something
        self.bytes_out = 0
        self.cold = 0  # reads whose pages had to be brought in first


class GoneTally:
    """What partitions had counted that are deleted now: without it the node's sums would fall,
    and who reckons rates from counters takes that for a restart, and all that is left for new."""

    __slots__ = ("batches", "bytes_in", "bytes_out", "codecs", "cold", "fetches", "records")

    def __init__(self) -> None:
        self.records = 0
        self.batches = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.fetches = 0
        self.cold = 0
        self.codecs = [0] * CODECS

    def add(
        self, partition: PartitionTally, records: int, bytes_in: int, codecs: Sequence[int]
    ) -> None:
        """Take over from a partition that took in so much, its batches counted by codec."""
        self.records += records
        self.batches += sum(codecs)
        self.bytes_in += bytes_in
        self.bytes_out += partition.bytes_out
        self.fetches += partition.fetches
        self.cold += partition.cold
        self.codecs = [a + b for a, b in zip(self.codecs, codecs, strict=True)]


class SentTally:
    """Bytes of logs on their way to sockets: by sendfile, or read and sent."""

    __slots__ = ("copied", "sendfile")

    def __init__(self) -> None:
        self.sendfile = 0
        self.copied = 0


class TurnTally:
    """Turns of the loop, and how long those took that were timed: so long the others waited.

    Counted down to 0, which is a small number, for which no object is made: while it is that, the
    present turn is timed.
    """

    __slots__ = ("_before", "_begun", "left", "timing", "took")

    def __init__(self) -> None:
        self.left = SAMPLE_EVERY
        self._before = 0
        self._begun = 0.0
        self.took = Durations()
        self.timing: Callable[[bool], None] = _nobody
        """Told when a turn begins that is timed (True), and that it has ended (False)."""

    @property
    def turns(self) -> int:
        return self._before + SAMPLE_EVERY - self.left

    def begin(self, now: float) -> None:
        """This turn is timed."""
        self._begun = now
        self.timing(True)

    def end(self, now: float) -> None:
        """The turn that is timed has ended; count down anew."""
        self.timing(False)
        self.took.add(now - self._begun)
        self.left = SAMPLE_EVERY
        self._before += SAMPLE_EVERY


def _nobody(_on: bool) -> None:
    """Nothing else is timed with a turn."""


class NodeMetrics:
    """All that is counted for the node as a whole."""

    __slots__ = ("apis", "askers", "opened", "sent", "turns")

    def __init__(self) -> None:
        self.apis: dict[int, ApiTally] = {}
        self.askers: set[AskerTally] = set()
        """Of the connections that are there and have asked something."""
        self.sent = SentTally()
        self.turns = TurnTally()
        self.opened: dict[str, int] = {}
        """Batches whose records had to be looked at, by the option or request that asked for it."""

    def api(self, key: int, name: str) -> ApiTally:
        found = self.apis.get(key)
        if found is None:
            found = self.apis[key] = ApiTally(name)
        return found

    def settle(self) -> None:
        """Bring `requests` of each API up to now: about 0.1 µs for each connection."""
        for asker in self.askers:
            asker.settle()

    def open(self, reason: str) -> None:
        """A batch was opened."""
        self.opened[reason] = self.opened.get(reason, 0) + 1
