"""Operations: transactions whose outcome gets known, where that is possible at all.

Owns the fence. A transaction whose outcome is Unknown may still be applied at any later time,
so reading back proves nothing: what is not there now may come. Every operation of a node
therefore requires that the node's fence key is unchanged, and after an Unknown the fence is
written anew. Once that is applied, the old transaction either was applied before it or never
will be, and the image at that revision tells which. Must not know what is changed, or why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ottla.cluster import keys
from ottla.cluster.store import (
    Absent,
    Applied,
    Compare,
    Failed,
    MetadataStore,
    Outcome,
    Put,
    StoreError,
    UnchangedSince,
    Write,
)
from ottla.cluster.view import ClusterView
from ottla.core.model import NodeId
from ottla.core.pending import Pending

UNSURE = "The metadata store did not say in time whether this was done."

ATTEMPTS_MAX = 5
FENCE_ATTEMPTS_MAX = 10


class Operation:
    """One change to the cluster, and how far it got.

    `settled` becomes true when the view shows that the change was made or can't be any more.
    `applied`: by this very operation, for certain. `was_unknown`: some attempt may have been.
    """

    __slots__ = (
        "applied",
        "attempts",
        "compares",
        "gaps",
        "is_settled",
        "pending",
        "settled",
        "was_unknown",
        "writes",
    )

    def __init__(
        self,
        compares: Sequence[Compare],
        writes: Sequence[Write],
        is_settled: Callable[[], bool],
    ) -> None:
        """`is_settled` asks the view, of which it is true that it missed nothing."""
        self.compares = compares
        self.writes = writes
        self.is_settled = is_settled
        self.pending: Pending[Operation] = Pending()
        self.attempts = 0
        self.gaps = 0
        self.settled = False
        self.applied = False
        self.was_unknown = False


class Operations:
    __slots__ = ("_fence_key", "_store", "_view")

    def __init__(self, store: MetadataStore, view: ClusterView, node_id: NodeId) -> None:
        self._store = store
        self._view = view
        self._fence_key = keys.fence_key(node_id)

    def run(self, operation: Operation) -> Pending[Operation]:
        """Complete with the operation: settled, or given up. Then the view is up to date with it.

        Fails with StoreError where the store refused and nothing was changed.
        """
        operation.gaps = self._view.gaps
        self._attempt(operation)
        return operation.pending

    def _attempt(self, operation: Operation) -> None:
        operation.attempts += 1
        fence = self._view.fence
        same = UnchangedSince(self._fence_key, fence) if fence else Absent(self._fence_key)
        pending = self._store.transact([same, *operation.compares], operation.writes)
        pending.then(lambda: self._attempted(operation, pending))

    def _attempted(self, operation: Operation, pending: Pending[Outcome]) -> None:
        try:
            outcome = pending.result()
        except StoreError as error:
            operation.pending.fail(error)  # what was unknown before has been fenced off
            return
        match outcome:
            case Applied(revision):
                operation.applied = operation.settled = True
                self._view.when(revision, lambda: operation.pending.complete(operation))
            case Failed(revision):
                self._view.when(revision, lambda: self._look(operation))
            case _:
                operation.was_unknown = True
                self._fence_off(operation, FENCE_ATTEMPTS_MAX)

    def _look(self, operation: Operation) -> None:
        """Nothing is under way any more: see what came of it, and try again if nothing did."""
        if operation.is_settled():
            operation.settled = True
            operation.pending.complete(operation)
        elif operation.was_unknown and self._view.gaps != operation.gaps:
            # It may have been applied and undone by another while the view was not looking.
            operation.pending.complete(operation)
        elif operation.attempts < ATTEMPTS_MAX:
            self._attempt(operation)  # the fence had moved, or what was in the way is gone
        else:
            operation.pending.complete(operation)

    def _fence_off(self, operation: Operation, attempts_left: int) -> None:
        if attempts_left == 0:
            operation.pending.complete(operation)
            return
        pending = self._store.transact([], [Put(self._fence_key, b"{}")])
        pending.then(lambda: self._fenced_off(operation, pending, attempts_left - 1))

    def _fenced_off(
        self, operation: Operation, pending: Pending[Outcome], attempts_left: int
    ) -> None:
        try:
            outcome = pending.result()
        except StoreError:
            operation.pending.complete(operation)  # not settled: the outcome stays unknown
            return
        if isinstance(outcome, Applied):
            self._view.when(outcome.revision, lambda: self._look(operation))
        else:
            self._fence_off(operation, attempts_left)
