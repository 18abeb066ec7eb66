"""Alterations: topics get more partitions, and resources other settings.

Owns how a decision about what is there becomes a transaction, and what came of it. What is
decided, and why not, is in `partitions.py` and `configs.py`. Must not change the image.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ottla.cluster import keys
from ottla.cluster.configs import Alteration, Planned, lane_of
from ottla.cluster.image import NO_SETTINGS, TopicImage
from ottla.cluster.lanes import Lanes
from ottla.cluster.operations import UNSURE, Operation, Operations
from ottla.cluster.store import (
    Absent,
    Compare,
    Delete,
    Present,
    Put,
    StoreError,
    UnchangedSince,
    Write,
)
from ottla.cluster.topics import Refused, TopicResult
from ottla.cluster.view import ClusterView
from ottla.core.pending import Pending, completed
from ottla.protocol.errors import ErrorCode

PLANS_MAX = 5
Outcome = Refused | None
"""None: it is done, and the image has it."""


class Alterations:
    """Each is planned against the image when its turn comes, and again if another was faster."""

    __slots__ = ("_adding", "_lanes", "_operations", "_view")

    def __init__(self, operations: Operations, view: ClusterView) -> None:
        self._operations = operations
        self._view = view
        self._lanes = Lanes()
        self._adding: dict[str, int] = {}

    @property
    def partitions_coming(self) -> int:
        """Partitions that are being added and that the image may not count yet."""
        return sum(self._adding.values())

    def add_partitions(
        self, name: str, plan: Callable[[], TopicImage | Refused], validate_only: bool
    ) -> Pending[TopicResult]:
        """Give a topic the partitions that `plan` says it shall have.

        REQUEST_TIMED_OUT where the store doesn't tell whether it was done.
        """
        attempt = partial(self._add, name, plan, validate_only, PLANS_MAX)
        running = self._lanes.run(f"partitions/{name}", attempt)
        result: Pending[TopicResult] = Pending()

        def answer() -> None:
            refused = _outcome(running)
            if refused is None:
                result.complete(TopicResult(name, topic=self._view.image.topics.get(name)))
            else:
                result.complete(TopicResult(name, refused.error, refused.message))

        running.then(answer)
        return result

    def alter(
        self, wanted: Alteration, plan: Callable[[], Planned | Refused], validate_only: bool
    ) -> Pending[Outcome]:
        """Set what `plan` says. REQUEST_TIMED_OUT where the store doesn't tell if it was done."""
        attempt = partial(self._alter, plan, validate_only, PLANS_MAX)
        running = self._lanes.run(f"configs/{lane_of(wanted)}", attempt)
        result: Pending[Outcome] = Pending()
        running.then(lambda: result.complete(_outcome(running)))
        return result

    # --- partitions ------------------------------------------------------------------------

    def _add(
        self, name: str, plan: Callable[[], TopicImage | Refused], validate_only: bool, left: int
    ) -> Pending[Outcome]:
        planned = plan()
        if isinstance(planned, Refused):
            return completed(planned)
        if validate_only:
            return completed(None)
        before = len(self._view.image.by_id[planned.id].partitions)
        count = len(planned.partitions)
        new = range(before, count)
        operation = Operation(
            [
                Present(keys.topic_key(planned.id)),
                # Partitions are added from the lowest on, so nobody has added any.
                Absent(keys.partition_key(planned.id, before)),
            ],
            [
                keys.put_head(planned),
                *(keys.put_partition(planned.id, n, planned.partitions[n]) for n in new),
            ],
            lambda: self._partitions_of(planned) != before,
        )
        self._adding[name] = count - before
        again = partial(self._add, name, plan, validate_only, left - 1)
        return self._carry_out(
            operation,
            # More than these came with or after them: nobody can take partitions away.
            lambda: self._partitions_of(planned) >= count,
            again if left > 1 else None,
            lambda: self._adding.pop(name),
        )

    def _partitions_of(self, topic: TopicImage) -> int:
        now = self._view.image.by_id.get(topic.id)
        return 0 if now is None else len(now.partitions)

    # --- settings --------------------------------------------------------------------------

    def _alter(
        self, plan: Callable[[], Planned | Refused], validate_only: bool, left: int
    ) -> Pending[Outcome]:
        planned = plan()
        if isinstance(planned, Refused):
            return completed(planned)
        if validate_only or planned.unchanged:
            return completed(None)
        compares: list[Compare] = [
            UnchangedSince(planned.key, planned.revision)
            if planned.revision
            else Absent(planned.key)
        ]
        if planned.topic_id is not None:
            compares.append(Present(keys.topic_key(planned.topic_id)))
        write: Write = Delete(planned.key)
        if planned.configs:
            write = Put(planned.key, keys.encode(planned.configs))
        operation = Operation(compares, [write], lambda: self._has_moved(planned))
        again = partial(self._alter, plan, validate_only, left - 1)
        return self._carry_out(
            operation, lambda: self._holds(planned), again if left > 1 else None, lambda: None
        )

    def _has_moved(self, planned: Planned) -> bool:
        """Whether what the plan was made from is no longer so."""
        if planned.topic_id is not None:
            topic = self._view.image.by_id.get(planned.topic_id)
            return topic is None or topic.configs_revision != planned.revision
        now = self._view.image.settings.get(planned.key, NO_SETTINGS)
        return now.revision != planned.revision

    def _holds(self, planned: Planned) -> bool:
        if planned.topic_id is not None:
            topic = self._view.image.by_id.get(planned.topic_id)
            return topic is not None and topic.configs == planned.configs
        return self._view.image.settings.get(planned.key, NO_SETTINGS).configs == planned.configs

    # --- both ------------------------------------------------------------------------------

    def _carry_out(
        self,
        operation: Operation,
        is_done: Callable[[], bool],
        again: Callable[[], Pending[Outcome]] | None,
        over: Callable[[], object],
    ) -> Pending[Outcome]:
        """Run it; plan anew where another was faster and it is certain that we were not."""
        result: Pending[Outcome] = Pending()
        running = self._operations.run(operation)

        def decide() -> None:
            over()
            try:
                running.result()
            except StoreError as error:
                result.fail(error)
                return
            if operation.applied or (operation.settled and is_done()):
                result.complete(None)
            elif operation.settled and not operation.was_unknown and again is not None:
                anew = again()
                anew.then(lambda: result.complete(_outcome(anew)))
            else:
                # Done and undone by another since, or never done: nobody can tell.
                result.complete(Refused(ErrorCode.REQUEST_TIMED_OUT, UNSURE))

        running.then(decide)
        return result


def _outcome(running: Pending[Outcome]) -> Outcome:
    try:
        return running.result()
    except StoreError as error:
        return Refused(ErrorCode.KAFKA_STORAGE_ERROR, str(error))
