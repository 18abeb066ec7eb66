"""Offset commits: how many a second of CPU is enough for, and how long it takes to load them.

Owns the groups that commit and the brokers that load. Must not extrapolate: what is named was run.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from ottla.bench import asking, contenders, pump, usage
from ottla.bench.contenders import Contender, Peer
from ottla.bench.group_figures import OURS, Figure, spreads
from ottla.bench.group_members import join_request, sync_request
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages import find_coordinator as fc
from ottla.protocol.messages import join_group as jg
from ottla.protocol.messages import offset_commit as oc
from ottla.protocol.messages import offset_fetch as of
from ottla.protocol.messages import sync_group as sg

Say = Callable[[str], None]

BUDGET_PER_CPU_S, BUDGET_LOAD_S = 10_000.0, 10.0
WHOLE = 1_000_000
BUDGET_COMPACTED_S = 1.0
_CONNECTIONS = 16
_AGAIN_PARTITIONS, _AT_ONCE = 10, 50
_LOADED_GROUPS, _WIDE_GROUPS = 64, 1000
_ANSWERS_MAX = 1 << 30
_WARM_UP_S, _COMMIT_SECONDS_MAX, _LOAD_DEADLINE_S = 5.0, 600.0, 300.0
_NOT_YET = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)


def commit(
    group: str, topic: str, partitions: Sequence[int], member: tuple[str, int] = ("", -1)
) -> bytes:
    """OffsetCommit, version 8; without a member as a consumer does that assigns by itself."""
    wanted = [
        oc.OffsetCommitRequestPartition(
            partition_index=partition, committed_offset=1_000 + partition, committed_metadata=""
        )
        for partition in partitions
    ]
    return asking.frame(
        oc.OffsetCommitRequest(
            group_id=group,
            generation_id_or_member_epoch=member[1],
            member_id=member[0],
            topics=[oc.OffsetCommitRequestTopic(name=topic, partitions=wanted)],
        ),
        8,
    )


def error_at(topic: str) -> int:
    """Where the first partition's error stands: size, id, tags, throttle, topic, index."""
    return 4 + 4 + 1 + 4 + 1 + (1 + len(topic)) + 1 + 4


def _find(address: tuple[str, int], group: str) -> None:
    """Until the broker has its internal topic. Raises LoadFailed."""
    for _ in range(600):
        request = fc.FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
        answer = asking.ask(address, request, 4, fc.FindCoordinatorResponse)
        if answer.coordinators[0].error_code not in _NOT_YET:
            return
        time.sleep(0.05)
    raise pump.LoadFailed("the broker finds no coordinator")


def joined(address: tuple[str, int], group: str, topic: str) -> tuple[str, int]:
    """The one member of a new group, and its generation. Raises LoadFailed."""
    _find(address, group)
    join = join_request(group, topic)
    for _ in range(600):
        answer = asking.ask(address, join, 7, jg.JoinGroupResponse)
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            join.member_id = answer.member_id
        elif answer.error_code not in _NOT_YET:
            break
        else:
            time.sleep(0.05)
    if answer.error_code == 0:
        sync = sync_request(group, topic, answer)
        if asking.ask(address, sync, 5, sg.SyncGroupResponse).error_code == 0:
            return answer.member_id, answer.generation_id
    raise pump.LoadFailed(f"a group was not joined: {ErrorCode(answer.error_code).name}")


def _frames(address: tuple[str, int], topic: str) -> list[bytes]:
    """One request for each connection, of a group of its own."""
    names = [f"{topic}-{place}" for place in range(_CONNECTIONS)]
    members = [joined(address, name, topic) for name in names]
    return [
        commit(name, topic, [place], member)
        for place, (name, member) in enumerate(zip(names, members, strict=True))
    ]


def _per_cpu_s(broker: Contender, frames: list[bytes], topic: str, how: tuple[int, float]) -> float:
    depth, seconds = how
    assert broker.pid is not None
    usage.touch_memory()
    before = usage.cpu(broker.pid)
    seen = pump.run(
        broker.address, pump.Load(frames, depth, error_at(topic), seconds, _ANSWERS_MAX)
    )
    return seen.answers / max((usage.cpu(broker.pid) - before).total, 0.01)


def measure_commits(rounds: int, seconds: float, peers: Sequence[Peer], say: Say) -> list[Figure]:
    """Interleaved with the peers. Raises LoadFailed."""
    found: dict[int, dict[str, list[float]]] = {16: {}, 1: {}}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ottla-groups-"))
        running = stack.enter_context(contenders.own_broker(f"{folder}/data"))
        brokers = [Contender(OURS, running.address, running.pid)]
        brokers += [one for peer in peers if (one := peer.contender()).pid is not None]
        loads = []
        for broker in brokers:
            topic = stack.enter_context(asking.new_topic(broker.address, _CONNECTIONS))
            asking.until_ready(broker.address, topic, _CONNECTIONS)
            frames = _frames(broker.address, topic)
            loads.append((broker, frames, topic))
            say(f"groups: {broker.name} warms up")
            warm_up_s = 0.5 if broker.name == OURS else _WARM_UP_S
            _per_cpu_s(broker, frames, topic, (16, warm_up_s))
        for turn in range(rounds):
            for depth, values in found.items():
                for broker, frames, topic in loads:
                    say(f"groups: commits, depth {depth}, {broker.name}, round {turn + 1}")
                    rate = _per_cpu_s(broker, frames, topic, (depth, seconds))
                    values.setdefault(broker.name, []).append(rate)
    return [
        Figure(
            f"commits of one partition, depth {depth}",
            "per CPU s",
            spreads(values),
            BUDGET_PER_CPU_S,
            at_least=True,
        )
        for depth, values in found.items()
    ]


def _until_loaded(address: tuple[str, int], groups: Sequence[str], topic: str) -> int:
    """How many of the groups have an offset, once no shard is loading. Raises LoadFailed."""

    wanted = [
        of.OffsetFetchRequestGroup(
            group_id=group,
            topics=[of.OffsetFetchRequestTopics(name=topic, partition_indexes=list(range(64)))],
        )
        for group in groups
    ]
    request = of.OffsetFetchRequest(groups=wanted, require_stable=False)
    deadline = time.perf_counter() + _LOAD_DEADLINE_S
    while time.perf_counter() < deadline:
        answer = asking.ask(address, request, 8, of.OffsetFetchResponse)
        if not any(group.error_code in _NOT_YET for group in answer.groups):
            return sum(
                any(p.committed_offset >= 0 for t in group.topics for p in t.partitions)
                for group in answer.groups
            )
        time.sleep(0.005)
    raise pump.LoadFailed(f"groups were not loaded within {_LOAD_DEADLINE_S:.0f} s")


def _write_narrow(address: tuple[str, int], topic: str, count: int) -> list[str]:
    """One partition in a request, over and over: as consumers do it. The groups' names."""
    groups = [f"narrow-{place}" for place in range(_LOADED_GROUPS)]
    frames = [commit(group, topic, [place]) for place, group in enumerate(groups)]
    load = pump.Load(frames, 16, error_at(topic), _COMMIT_SECONDS_MAX, count)
    if (done := pump.run(address, load).answers) < count:
        raise pump.LoadFailed(f"only {done:,} commits were written")
    return groups


def _write_wide(address: tuple[str, int], topic: str, count: int) -> list[str]:
    """Each group commits many partitions once: nothing in the log is older than anything else."""
    groups = [f"wide-{place}" for place in range(_WIDE_GROUPS)]
    partitions = range(count // _WIDE_GROUPS)
    for group in groups:
        pump.ask(address, commit(group, topic, partitions))
    return groups


def _write_again(address: tuple[str, int], topic: str, count: int) -> list[str]:
    """A thousand groups commit ten partitions each, over and over: most of the log is old."""
    groups = [f"again-{place}" for place in range(_WIDE_GROUPS)]
    frames = [commit(group, topic, range(_AGAIN_PARTITIONS)) for group in groups]
    each = max(count // _AGAIN_PARTITIONS // len(groups), 1)
    for at in range(0, len(groups), _AT_ONCE):
        some = frames[at : at + _AT_ONCE]
        load = pump.Load(some, 4, error_at(topic), _COMMIT_SECONDS_MAX, each * len(some))
        if pump.run(address, load).answers < each * len(some):
            raise pump.LoadFailed("not all commits were written")
    return groups


_WRITERS = {"narrow": _write_narrow, "wide": _write_wide, "compacted": _write_again}


def _compact(directory: str) -> None:
    """As an operator would, with nobody on the directory. Raises LoadFailed."""
    command = [sys.executable, "-m", "ottla", "log", "compact", directory]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise pump.LoadFailed(f"the log was not compacted: {done.stderr.strip()}")


def _loading(count: int, kind: str) -> tuple[float, float]:
    """CPU and wall seconds from a broker's start until all groups are there. Raises LoadFailed."""
    partitions_count = count // _WIDE_GROUPS if kind == "wide" else _LOADED_GROUPS
    topic = "committed"
    with tempfile.TemporaryDirectory(prefix="ottla-groups-") as folder:
        with contenders.own_broker(f"{folder}/data") as running:
            asking.create_topic(running.address, topic, partitions_count)
            _find(running.address, "committed")
            groups = _WRITERS[kind](running.address, topic, count)
        if kind == "compacted":
            _compact(f"{folder}/data")
        begun = time.perf_counter()
        with contenders.own_broker(f"{folder}/data") as running:
            there = _until_loaded(running.address, groups, topic)
            wall_s = time.perf_counter() - begun
            cpu_s = usage.cpu(running.pid).total
    if there != len(groups):
        raise pump.LoadFailed(f"{len(groups) - there} of {len(groups)} groups have lost offsets")
    return cpu_s, wall_s


def measure_loading(count: int, say: Say) -> list[Figure]:
    """All kinds of log, once each. Raises LoadFailed."""
    figures = []
    for kind, text, limit_s in (
        ("narrow", "64 groups, one a request", BUDGET_LOAD_S),
        ("wide", "all of other partitions", BUDGET_LOAD_S),
        ("compacted", "1,000 groups, after ottla log compact", BUDGET_COMPACTED_S),
    ):
        say(f"groups: loading {count:,} commits, {text}")
        cpu_s, wall_s = _loading(count, kind)
        name = f"loading {count:,} commits, {text}"
        budget = limit_s if count == WHOLE else None
        figures += [
            Figure(f"{name}: wall", "s", spreads({OURS: [wall_s]}), budget),
            Figure(f"{name}: CPU", "s", spreads({OURS: [cpu_s]})),
        ]
    return figures
