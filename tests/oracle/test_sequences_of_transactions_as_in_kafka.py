"""Random sequences of what producers of transactions ask, of Apache Kafka and of ottla.

Two producers share a transactional id, another has one of its own, a fourth none; an admin writes
markers and deletes records. Each step's answer is the same on both, and so is all that can be seen.
What may differ is in `answers/allowed.py`: a sequence ends there. A failure is told with as few
steps as show it. Skipped with a reason where Apache Kafka is not set up; OTTLA_SEED repeats a run,
OTTLA_SOAK=1 runs many more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import pytest

from tests.oracle.answers.allowed import ALLOWED
from tests.oracle.answers.offset_cases import coordinated as group_coordinated
from tests.oracle.answers.peer import differences, ordered
from tests.oracle.answers.txn_cases import coordinated
from tests.oracle.conftest import SOAK
from tests.oracle.pair import Peers, both
from tests.oracle.sequences.steps import Step, sequence
from tests.oracle.sequences.world import LESS_S, World

pytestmark = pytest.mark.reference

SEQUENCES = 1000 if SOAK else 40
STEPS = 25
TRIES_MAX = 150
"""How often a sequence that shows a difference is cut and tried again."""

REFUSED = "refused-batches-leave-nothing"
ZOMBIE = "zombies-stay-fenced"
STUCK = "refused-markers-end-it-too"

AHEAD = (1, 2)
"""By so much is a producer's epoch ahead that lies. Together with markers of an admin that is what
has partitions refuse a coordinator's markers: `STUCK`."""
LOOK = Step("look", "", 0, {})

_serial = count()


class Found(NamedTuple):
    """The first difference of a sequence."""

    steps: list[Step]
    what: list[tuple[str, Any, Any]]
    allowed: str | None


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    # So that a group's offsets lie in the same partition on both.
    with both(tmp_path_factory.mktemp("sequences"), "offsets.topic.num.partitions=8") as peers:
        for peer in peers:
            coordinated(peer, "anybody")
            group_coordinated(peer, "anybody")
        yield peers


def played(peers: Peers, steps: list[Step], *, looks: bool = False) -> Found | None:
    """Take the steps on both; with `looks`, look at everything after each."""
    name = f"s{next(_serial)}"
    worlds = [World(peer, name) for peer in peers]
    for at, step in enumerate(steps):
        if step.kind == "mark" or step.more.get("lie") in AHEAD:
            worlds[0].patience_s = LESS_S
        answers = [ordered(world.run(step)) for world in worlds]
        so_far = steps[: at + 1]
        wrong = differences(*answers)
        assert not worlds[1].is_stuck, f"a transaction of ottla's does not end: {so_far}"
        if worlds[0].is_stuck:
            is_known = worlds[0].patience_s == LESS_S
            return Found(so_far, [("", "no end", "an end")], STUCK if is_known else None)
        if wrong:
            return Found(so_far, wrong, why_allowed(step, worlds[0], answers))
        told = [ordered(world.run(LOOK) if looks else world.states()) for world in worlds]
        if wrong := differences(*told):
            return Found(so_far, wrong, None)
    return None


def why_allowed(step: Step, kafka: World, answers: list[Any]) -> str | None:
    """The name of the difference that this is, if it may be one."""
    if not all(isinstance(one, dict) for one in answers):
        return None
    if step.kind == "end" and answers[1]["error_code"] == "producer_fenced":
        zombie = answers[0]["error_code"] in ("none", "invalid_txn_state")
        return ZOMBIE if zombie else None
    if step.kind != "produce":
        return None
    told = [one["responses"][0]["partition_responses"] for one in answers]
    differ = [pair for pair in zip(*told, strict=True) if pair[0] != pair[1]]
    by_refused = all(_by_refused(step, kafka, *pair) for pair in differ)
    return REFUSED if by_refused and differ else None


def _by_refused(step: Step, kafka: World, theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether Kafka has judged the sequence by a batch that was refused, or came again."""
    number = theirs["index"]
    part = next(one for one in step.more["parts"] if one["partition"] == number)
    producer_id, _ = kafka.identity(step, part.get("other", ""))
    if "out_of_order_sequence_number" not in (theirs["error_code"], ours["error_code"]):
        return False
    return (kafka.named(producer_id), number) in kafka.tainted


def smallest(peers: Peers, found: Found) -> Found:
    """The same kind of difference with as few steps as can be had."""
    tries = 0
    at = len(found.steps) - 2
    while at >= 0 and tries < TRIES_MAX:
        fewer = found.steps[:at] + found.steps[at + 1 :]
        again = played(peers, fewer, looks=True)
        tries += 1
        if again is not None and again.allowed is None:
            found = again
            at = min(at, len(found.steps) - 1)
        at -= 1
    return found


def test_producers_are_told_the_same_and_so_is_who_looks(
    peers: Peers, seed: str, tally: Counter[str]
) -> None:
    for number in range(SEQUENCES):
        steps = sequence(f"{seed}-{number}", STEPS)
        found = played(peers, steps)
        tally["steps of transactions taken on both"] += len(steps if found is None else found.steps)
        if found is None:
            continue
        if found.allowed is None:
            found = smallest(peers, found)
            told = "\n".join(map(str, found.steps))
            wrong = "\n".join(f"{path}: Kafka {k!r}, ottla {o!r}" for path, k, o in found.what)
            pytest.fail(f"sequence {seed}-{number}:\n{told}\n{wrong}")
        tally[f"sequences that ended at: {found.allowed}"] += 1


def test_what_may_differ_is_documented() -> None:
    assert {REFUSED, ZOMBIE, STUCK} <= {one.name for one in ALLOWED}
