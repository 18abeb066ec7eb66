"""What many members cost: a thousand of them settle in a fraction of the CPU they may take."""

from __future__ import annotations

import time
import tracemalloc

from tests.groups import World

MEMBERS = 1000
SETTLE_CPU_S = 2.0
MEMBER_BYTES = 8 << 10


def settle(world: World) -> None:
    """All join, the first one leads, all have their assignment."""
    ids = [world.promised() for _ in range(MEMBERS)]
    joined = [world.join(one, (("range", bytes(200)), ("sticky", bytes(300)))) for one in ids]
    joined[0] = world.join(ids[0], (("range", bytes(200)), ("sticky", bytes(300))))
    generation = joined[0].result().generation_id
    waiting = [world.sync(one, generation) for one in ids[1:]]
    world.sync(ids[0], generation, {one: bytes(100) for one in ids})
    assert all(one.result().assignment == bytes(100) for one in waiting)
    assert world.state == "Stable"


def test_a_thousand_members_settle() -> None:
    world = World()
    since = time.process_time()
    settle(world)
    assert time.process_time() - since <= SETTLE_CPU_S


def test_an_idle_member_is_small() -> None:
    world = World()
    tracemalloc.start()
    try:
        settle(world)
        written = sum(map(len, world.journal.batches))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (taken - written) / MEMBERS <= MEMBER_BYTES
