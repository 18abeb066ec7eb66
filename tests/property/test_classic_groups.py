"""I36 and I37: in a generation a partition has one owner, and after faults a group gets stable.

Clients that do as consumers do, over a network that delays, repeats, reorders and loses requests
and answers; a coordinator that is restarted at any step, without what it had not committed.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode as E
from tests.groups import REBALANCE_S, SESSION_S, World

PARTITIONS = 5
CLIENTS = {"a": None, "b": None, "c": None, "s1": "s1", "s2": "s2"}
"""By name, with the instance id of static ones."""


class Client:
    """A consumer, as far as its group is concerned. One request at a time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.instance = CLIENTS[name]
        self.life = 0
        self.alive = False
        self.reset()

    def reset(self) -> None:
        self.member_id = ""
        self.generation = -1
        self.wants = "join"
        self.awaits: int | None = None
        self.assignments: dict[str, bytes] = {}
        self.owns: list[int] | None = None


class ClassicGroups(RuleBasedStateMachine):
    """`owners` is the model: who was told that it owns a partition, in each generation."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.clients = {name: Client(name) for name in CLIENTS}
        self.requests: list[tuple[int, Client, int, tuple[Any, ...]]] = []
        self.answers: list[tuple[int, Client, int, str, Pending[Any]]] = []
        self.number = 0
        self.owners: dict[tuple[int, int], str] = {}

    @initialize(names=st.sets(st.sampled_from(sorted(CLIENTS)), min_size=1))
    def begin(self, names: set[str]) -> None:
        """A group that is at work; what happens to groups that come to be is in it, too."""
        for name in sorted(names):
            self.starts(name)
        self.all_goes_well_for_a_while(30)

    @rule(moments=st.integers(1, 12))
    def all_goes_well_for_a_while(self, moments: int) -> None:
        for _ in range(moments):
            self._a_quiet_moment()

    # --- clients ---------------------------------------------------------------------------

    @rule(name=st.sampled_from(sorted(CLIENTS)))
    def starts(self, name: str) -> None:
        client = self.clients[name]
        if not client.alive:
            client.reset()
            client.alive = True
            client.life += 1

    @rule(name=st.sampled_from(sorted(CLIENTS)))
    def dies(self, name: str) -> None:
        self.clients[name].alive = False

    @rule(name=st.sampled_from(sorted(CLIENTS)))
    def leaves(self, name: str) -> None:
        client = self.clients[name]
        if client.alive and client.member_id:
            self._send(client, ("leave", client.member_id))
        client.alive = False

    @rule(name=st.sampled_from(sorted(CLIENTS)))
    def acts(self, name: str) -> None:
        """Send what it wants to, if it waits for nothing."""
        client = self.clients[name]
        if not client.alive or client.awaits is not None:
            return
        if client.wants == "join":
            client.owns = None
            self._send(client, ("join", client.member_id))
        elif client.wants == "sync":
            made = (client.member_id, client.generation, client.assignments)
            self._send(client, ("sync", *made))
        else:
            self._send(client, ("beat", client.member_id, client.generation))
        client.awaits = self.number

    @rule(name=st.sampled_from(sorted(CLIENTS)))
    def joins_again(self, name: str) -> None:
        """Its topics have changed, perhaps."""
        client = self.clients[name]
        if client.alive and client.awaits is None:
            client.wants = "join"

    @rule(name=st.sampled_from(sorted(CLIENTS)))
    def gives_up_waiting(self, name: str) -> None:
        self.clients[name].awaits = None

    def _send(self, client: Client, request: tuple[Any, ...]) -> None:
        self.number += 1
        self.requests.append((self.number, client, client.life, request))

    # --- the network -----------------------------------------------------------------------

    @rule(at=st.integers(0, 9), again=st.booleans())
    def a_request_arrives(self, at: int, again: bool = False) -> None:
        if not self.requests:
            return
        at %= len(self.requests)
        number, client, life, request = self.requests[at]
        if not again:
            del self.requests[at]
        world, more = self.world, {"group_instance_id": client.instance}
        kind = request[0]
        pending: Pending[Any]
        if kind == "join":
            pending = world.join(request[1], client=client.name, **more)
        elif kind == "sync":
            pending = world.sync(*request[1:], **more)
        elif kind == "beat":
            pending = world.heartbeat(request[1], request[2], client.instance)
        else:
            pending = world.leave(request[1], **more)
        self.answers.append((number, client, life, kind, pending))

    @rule(at=st.integers(0, 9))
    def a_request_is_lost(self, at: int) -> None:
        if self.requests:
            del self.requests[at % len(self.requests)]

    @rule(at=st.integers(0, 9))
    def an_answer_arrives(self, at: int) -> None:
        done = [one for one in self.answers if one[4].done]
        if not done:
            return
        answer = done[at % len(done)]
        self.answers.remove(answer)
        number, client, life, kind, pending = answer
        if client.alive and life == client.life and client.awaits == number:
            client.awaits = None
            self._take(client, kind, pending.result())

    def _take(self, client: Client, kind: str, answer: Any) -> None:
        error = answer if isinstance(answer, E) else E(answer.error_code)
        if error == E.MEMBER_ID_REQUIRED:
            client.member_id = answer.member_id
        elif error == E.UNKNOWN_MEMBER_ID:
            client.reset()
        elif error == E.FENCED_INSTANCE_ID:
            client.alive = False
        elif error:
            client.wants = "join"
        elif kind == "join":
            self._joined(client, answer)
        elif kind == "sync":
            client.wants = "beat"
            client.owns = list(answer.assignment)
            self._note_owner(client)

    def _joined(self, client: Client, answer: Any) -> None:
        client.member_id, client.generation = answer.member_id, answer.generation_id
        client.wants, client.assignments = "sync", {}
        if answer.skip_assignment or answer.leader != answer.member_id:
            return
        ids = [one.member_id for one in answer.members]
        shares: dict[str, list[int]] = {member_id: [] for member_id in ids}
        for partition in range(PARTITIONS):
            shares[ids[(partition + answer.generation_id) % len(ids)]].append(partition)
        client.assignments = {member_id: bytes(share) for member_id, share in shares.items()}

    def _note_owner(self, client: Client) -> None:
        """I36. A static member is the same owner whichever id it has."""
        owner = client.instance or client.member_id
        for partition in client.owns or ():
            former = self.owners.setdefault((client.generation, partition), owner)
            assert former == owner, f"partition {partition} in generation {client.generation}"

    # --- the node --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1, 3, 7, 12]))
    def time_passes(self, seconds: float) -> None:
        self.world.loop.advance(seconds)

    @rule()
    def the_coordinator_is_restarted(self) -> None:
        self.world.crash()

    @rule(late=st.booleans())
    def commits_come_late_or_at_once(self, late: bool) -> None:
        self.world.journal.commits_at_once = not late
        self.world.journal.commit()

    @rule(name=st.sampled_from(sorted(CLIENTS)), moments=st.integers(1, 4))
    def a_crash_takes_what_was_not_committed(self, name: str, moments: int) -> None:
        self.commits_come_late_or_at_once(True)
        self.joins_again(name)
        for _ in range(moments):
            self._a_quiet_moment()
        self.the_coordinator_is_restarted()
        self.commits_come_late_or_at_once(False)

    @rule(full=st.booleans())
    def the_disk_is_full_or_not(self, full: bool) -> None:
        error = E.KAFKA_STORAGE_ERROR if full else E.NONE
        self.world.journal.append_error = error

    # --- the end ---------------------------------------------------------------------------

    def teardown(self) -> None:
        """I37: faults stop, and everybody is in a stable group before long, or it is empty."""
        self.the_disk_is_full_or_not(False)
        self.commits_come_late_or_at_once(False)
        self.requests.clear()
        # A last goodbye: one whose record could not be written is only done with when it is
        # repeated, or when somebody joins.
        self.world.leave("nobody")
        for client in self.clients.values():
            client.awaits = None
        since = self.world.loop.now_s
        # Who died waiting for a generation is noticed by not syncing, a phase later.
        bound_s = SESSION_S + 2 * REBALANCE_S + 2
        while not self._is_well():
            assert self.world.loop.now_s <= since + bound_s, self._told()
            self._a_quiet_moment()

    def _a_quiet_moment(self) -> None:
        for name in sorted(CLIENTS):
            self.acts(name)
        while self.requests:
            self.a_request_arrives(0)
        while any(one[4].done for one in self.answers):
            self.an_answer_arrives(0)
        self.world.loop.advance(0.2)

    def _is_well(self) -> bool:
        alive = [one for one in self.clients.values() if one.alive]
        group: Any = self.world.shard.groups.get("g")
        if not alive:
            return group is None or (group.state.value == "Empty")
        if group is None or group.state.value != "Stable":
            return False
        there = {member.id for member in group.members}
        owned = sorted(one for client in alive for one in client.owns or ())
        settled = all(one.wants == "beat" and one.generation == group.generation for one in alive)
        same = there == {one.member_id for one in alive}
        return settled and same and owned == list(range(PARTITIONS))

    def _told(self) -> str:
        group: Any = self.world.shard.groups.get("g")
        clients = [
            (one.name, one.alive, one.member_id, one.wants, one.generation, one.awaits, one.owns)
            for one in self.clients.values()
        ]
        members = None if group is None else [one.id for one in group.members]
        state = None if group is None else (group.state, group.generation, group.leader)
        return f"{state} {members} {clients}"


ClassicGroups.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, print_blob=True
)
TestClassicGroups = ClassicGroups.TestCase
