"""Consumer groups under members that come, go, die, and answers and requests that get lost.

A restart of the coordinator may come between any two steps; requests may be delayed, repeated and
overtaken. I36: no two members work on one partition. I37: once all is quiet, all get their share.
The members are the model: what each believes that it may work on. Some speak the classic protocol;
the group stays one of the new protocol, as `tests/unit` sees to groups that change their kind.
"""

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from ottla.coordinator.group.consumer_group import ConsumerGroup
from ottla.protocol.errors import ErrorCode
from tests.unit.coordinator.group.consumer_world import given
from tests.unit.coordinator.group.test_mixed_groups import Mixed

TOPICS = ("t", "u")
FENCED = (
    ErrorCode.FENCED_MEMBER_EPOCH,
    ErrorCode.UNKNOWN_MEMBER_ID,
    ErrorCode.GROUP_ID_NOT_FOUND,
)
SESSION_MS = 45_000
REBALANCE_MS = 20_000


class Client:
    """A member as a client sees itself. It works on `owned`, and gives up at its own pace."""

    def __init__(self, name: str, topics: tuple[str, ...], instance: str | None) -> None:
        self.name = name
        self.topics = topics
        self.instance = instance
        self.epoch = 0
        self.owned: set[tuple[str, int]] = set()
        self.told: set[tuple[str, int]] | None = None
        """What it shall own, while it has not got there."""
        self.heard_ms = 0
        self.until_ms: int | None = None
        """By when it must have given up what it shall not have, or have joined again."""
        self.is_alive = True
        self.says_all = False
        """As clients do after an answer that did not come."""

    def request(self) -> dict:
        owned: dict[str, list[int]] = {}
        for topic, number in sorted(self.owned):
            owned.setdefault(topic, []).append(number)
        fields = {"owned": owned, "instance_id": self.instance}
        if self.epoch == 0 or self.says_all:
            fields |= {
                "owned": {} if self.epoch == 0 else owned,
                "rebalance_timeout_ms": REBALANCE_MS,
                "subscribed_topic_names": list(self.topics),
            }
        return fields

    def hear(self, answer, now_ms: int) -> None:
        if answer.error_code in FENCED:
            self.drop()
            return
        if answer.error_code:
            return
        self.heard_ms = now_ms
        self.says_all = False
        if answer.member_epoch < self.epoch:
            return  # an old answer
        self.epoch = answer.member_epoch
        told = given(answer)
        if told is not None:
            self.told = {(topic, number) for topic, numbers in told.items() for number in numbers}
            if self.owned - self.told:
                self.until_ms = self.until_ms or now_ms + REBALANCE_MS
            else:
                self.owned |= self.told
                self.until_ms = None

    def revoke(self) -> None:
        """Give up what it shall not have, then take what it shall."""
        if self.told is not None:
            self.owned &= self.told
            self.owned |= self.told
            self.until_ms = None

    def drop(self) -> None:
        self.epoch, self.owned, self.told, self.until_ms = 0, set(), None, None


class ClassicClient(Client):
    """A member of the classic protocol that rebalances cooperatively (KIP-429): what it has to
    give up it gives up before it joins again, and says at each join what it still has."""

    def __init__(self, name: str, topics: tuple[str, ...]) -> None:
        super().__init__(name, topics, None)
        self.is_to_join = True

    def turn(self, world: Mixed) -> None:
        """A heartbeat, or where it must another join and what comes of that."""
        if not self.is_to_join:
            error = world.classic_beat(self.name, self.epoch)
            if error not in (ErrorCode.NONE, ErrorCode.REBALANCE_IN_PROGRESS):
                self.drop()
                return
            self.heard_ms = world.clock.ms
            if error:
                self.is_to_join = True
                self.until_ms = self.until_ms or world.clock.ms + REBALANCE_MS
            return
        owned: dict[str, list[int]] = {}
        for topic, number in sorted(self.owned):
            owned.setdefault(topic, []).append(number)
        answer = world.classic_join(
            self.name,
            owned,
            topics=list(self.topics),
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=REBALANCE_MS,
        )
        if answer.error_code:
            self.drop()
            return
        self.until_ms = None
        self.heard_ms, self.epoch = world.clock.ms, answer.generation_id
        told = world.classic_sync(self.name, self.epoch)
        if isinstance(told, ErrorCode):
            assert told == ErrorCode.REBALANCE_IN_PROGRESS
            return
        self.told = {(topic, number) for topic, numbers in told.items() for number in numbers}
        self.is_to_join = bool(self.owned - self.told)
        self.owned |= set() if self.is_to_join else self.told

    def revoke(self) -> None:
        if self.told is not None:
            self.owned &= self.told

    def drop(self) -> None:
        super().drop()
        self.is_to_join = True


class ConsumerGroups(RuleBasedStateMachine):
    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.world = Mixed({"t": 4, "u": 3}, group_consumer_migration_policy="upgrade")
        self.all: list[Client] = []
        self.late: list[tuple[Client, int, dict]] = []
        self.count = 0

    # --- members ---------------------------------------------------------------------------

    @rule(
        target=clients,
        topics=st.sampled_from([("t",), ("u",), ("t", "u"), ("t", "absent")]),
        instance=st.sampled_from([None, None, None, "i", "j"]),
    )
    def join(self, topics, instance):
        if sum(client.is_alive for client in self.all) >= 6:
            return multiple()
        self.count += 1
        client = Client(f"m{self.count}", topics, instance)
        self.all.append(client)
        self.send(client)
        return client

    @rule(target=clients, topics=st.sampled_from([("t",), ("u",), ("t", "u")]))
    def join_by_the_classic_protocol(self, topics):
        if not self.is_begun() or sum(client.is_alive for client in self.all) >= 6:
            return multiple()
        self.count += 1
        client = ClassicClient(f"m{self.count}", topics)
        self.all.append(client)
        self.send(client)
        return client

    def is_begun(self):
        """Whether a member of the classic protocol would join a consumer group."""
        group = self.group()
        return isinstance(group, ConsumerGroup) and not group.is_empty

    @rule(client=clients)
    def beat(self, client):
        self.send(client)

    @rule(client=clients)
    def give_up_and_beat(self, client):
        if client.is_alive:
            client.revoke()
            self.send(client)

    @rule(client=clients)
    def beat_and_lose_the_answer(self, client):
        if client.is_alive and not isinstance(client, ClassicClient):
            self.world.beat(client.name, client.epoch, **client.request())
            client.says_all = True

    @rule(client=clients, topics=st.sampled_from([("t",), ("u",), ("t", "u")]))
    def subscribe_to_other_topics(self, client, topics):
        if client.is_alive and client.epoch:
            client.topics = topics
            if isinstance(client, ClassicClient):
                client.is_to_join = True
            self.send(client, subscribed_topic_names=list(topics))

    @rule(client=clients)
    def leave(self, client):
        if client.is_alive:
            epoch = -1 if client.instance is None else -2
            client.is_alive = False
            client.drop()
            if isinstance(client, ClassicClient):
                self.world.classic_leave(client.name)
            else:
                self.world.beat(client.name, epoch, instance_id=client.instance)

    @rule(client=clients)
    def die(self, client):
        client.is_alive = False

    @rule(client=clients)
    def delay(self, client):
        """The request will come, but later, when others have overtaken it; its sender won't know.

        One that joins is not sent twice by a client that could be told of its epoch meanwhile.
        """
        if client.is_alive and client.epoch and not isinstance(client, ClassicClient):
            self.late.append((client, client.epoch, client.request()))

    @rule()
    def deliver_late(self):
        """Its answer comes to nobody. Who gets none says all with the next heartbeat: else nothing
        would tell it what it was given without a new epoch, here and with Kafka."""
        if self.late:
            client, epoch, fields = self.late.pop(0)
            self.world.beat(client.name, epoch, **fields)
            client.says_all = True

    def send(self, client: Client, **fields):
        if isinstance(client, ClassicClient):
            if client.is_alive and self.is_begun():
                client.turn(self.world)
        elif client.is_alive:
            answer = self.world.beat(client.name, client.epoch, **{**client.request(), **fields})
            client.hear(answer, self.world.clock.ms)

    # --- the world -------------------------------------------------------------------------

    @rule()
    def restart(self):
        before = [(each.epoch, each.assigned) for each in self.members()]
        self.world.restart()
        assert [(each.epoch, each.assigned) for each in self.members()] == before

    @rule(ms=st.sampled_from([100, 1000, 5000, 15_000, 30_000]))
    def wait(self, ms):
        self.world.pass_ms(ms)
        self.give_up_what_nobody_confirms()

    @rule(t=st.integers(4, 6), u=st.sampled_from([0, 3, 3, 3]))
    def change_topics(self, t, u):
        have = len(self.world.image.topics["t"].partitions)
        self.world.set_topics({"t": max(t, have), **({"u": u} if u else {})})
        for client in self.all:
            # It tells of topics by name, so that it can't have anything of one that is gone.
            if not u and isinstance(client, ClassicClient):
                client.owned = {one for one in client.owned if one[0] != "u"}

    def group(self) -> Any:
        """None before the first member."""
        return self.world.shard.groups.get("g")

    def members(self):
        group = self.group()
        return [] if group is None else [group.members[name] for name in sorted(group.members)]

    def give_up_what_nobody_confirms(self):
        """A client that wasn't answered for a session, or did not give up in time, stops."""
        for client in self.all:
            late = client.until_ms is not None and self.world.clock.ms >= client.until_ms
            if late or self.world.clock.ms - client.heard_ms >= REBALANCE_MS:
                client.drop()

    # --- what must hold --------------------------------------------------------------------

    @invariant()
    def i36_no_partition_has_two_members(self):
        owners = {}
        for member in self.members():
            for held in (member.assigned, member.revoking):
                for topic, numbers in held.items():
                    for number in numbers:
                        assert (topic, number) not in owners, (member.id, owners[topic, number])
                        owners[topic, number] = member.id
        group = self.group()
        told = {} if group is None else group.owners
        assert owners == {(t, n): who for t, of in told.items() for n, who in of.items()}

    @invariant()
    def h106_what_members_have_said_is_counted(self):
        group = self.group()
        said = 0 if group is None else group.said_bytes
        assert said == sum(member.said_bytes() for member in self.members())

    @invariant()
    def i36_no_two_living_members_work_on_one_partition(self):
        worked = [one for client in self.all if client.is_alive for one in client.owned]
        assert len(worked) == len(set(worked)), [(c.name, c.epoch, *c.owned) for c in self.all]

    def teardown(self):
        """I37: nothing more goes wrong, so within some heartbeats all have their share."""
        self.late.clear()
        living = [client for client in self.all if client.is_alive]
        self.world.pass_ms(1)
        for _ in range(24):  # two turns of a classic member for each of a new one
            self.world.pass_ms(5000)
            for client in living:
                if self.world.clock.ms - client.heard_ms >= REBALANCE_MS:
                    client.drop()
                client.revoke()
                self.send(client)
        group = self.group()
        taken = {client.name for client in living} & set(group.members if group else ())
        if not taken:
            return
        assert set(group.members) == taken
        assert group.state == "Stable"
        got = sorted(one for client in living if client.name in taken for one in client.owned)
        topics = {name for client in living if client.name in taken for name in client.topics}
        image = self.world.image.topics
        assert got == sorted(
            (name, number)
            for name in topics & image.keys()
            for number in range(len(image[name].partitions))
        )


TestConsumerGroups = ConsumerGroups.TestCase
TestConsumerGroups.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, print_blob=True
)
