"""Every state that a power cut may leave, over appends, rolls, checkpoints, truncation and deletion.

A history from a seed goes on step by step; at each step the states that the disk may be found in
are listed (`testing/simcrash.py`) and the storage code opens every one: twice, and some with another
power cut while it recovers. What must hold each time (I27, I28, I31): what was synced is there,
nothing that was never written, nothing out of order, producers, epochs and indexes are those of a
full rebuild, opening again changes nothing.

How many states a run has tried, and while which operations were not settled, is printed (`-s` shows it). A failure names its seed and state:
`OTTLA_SEED=n .venv/bin/pytest tests/sim/test_crash_states.py` repeats that history alone.
OTTLA_SOAK=1 tries a million. Compaction and the metadata store have lists of their own:
test_compaction_crash_states.py, tests/faults/test_store_crash_states.py.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import ENOSPC
from functools import partial

import pytest

from ottla.core.model import Offset, TopicPartition
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.records.batch import BatchView
from ottla.storage.log import Log
from ottla.testing.simcrash import crash_states
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault
from ottla.testing.simimage import Cut, Folder, Link, Rename, Unlink, Write, folder_of
from tests.sim.histories import named_by
from tests.sim.test_storage_crashes import History, Model

STATES = 1_000_000 if os.environ.get("OTTLA_SOAK") == "1" else 21_000
STATES_PER_TEST = 1050
DRAWN = 6
CUTS, CUTS_EVERY = 4, 16
HISTORIES_MAX = 30
FIRST_OF_EACH = 900_000_000
DELETES_AT = 6
LEAST = {
    "append unsettled": 1000,
    "roll unsettled": 1000,
    "checkpoint unsettled": 1000,
    "truncate unsettled": 150,
    "cut by recovery": 100,
    "delete unsettled": 50,
}
"""How many states one test tries while such an operation is not settled. Compaction and the
metadata store say theirs where they are enumerated."""
RECOVERY_ACTIONS = ("sync", "truncate", "remove", "replace", "sync directory", "write", "create")


@dataclass
class Asked(Model):
    """A model whose start may move: what is durable of that, and what was asked for."""

    start_durable: int = 0
    start_asked: int = 0


class Stepwise(History):
    """A history that is looked at after each step, instead of crashing now and then."""

    def __init__(self, seed: int) -> None:
        self.deleting: set[bytes] = set()
        self.gone: set[bytes] = set()
        super().__init__(seed)

    def claim(self) -> None:
        super().claim()
        for name, log in list(self.directory.logs.items()):
            assert log.topic_id not in self.gone, f"{name} was deleted and is back"
            if log.topic_id in self.deleting:
                self.directory.set_aside([name])
        logs = self.directory.logs
        self.directory.found = [one for one in self.directory.found if one.partition in logs]

    def new_model(self, name: TopicPartition) -> None:
        if not isinstance(self.models.get(name), Asked) and name in self.models:
            self.models[name] = Asked(**vars(self.models[name]))

    def step(self) -> str:
        chance = self.random.random()
        if chance < 0.55:
            self.append()
            what = "append"
        elif chance < 0.80:
            self.turn(self.random.randrange(1, 6))
            what = "a few calls of the disk"
        elif chance < 0.84:
            self.settle()
            what = "all calls of the disk"
        elif chance < 0.89:
            self.directory.checkpoint().then(lambda: None)
            what = "checkpoint"
        elif chance < 0.94:
            what = self.move_start()
        elif chance < 0.96:
            what = self.delete()
        elif chance < 0.975:
            what = self.take_back()
        else:
            what = self.plan_fault_of_this() or "fault"
        for name in self.models:
            self.new_model(name)
        if self.directory.rounds.failure is not None or any(
            log.failed for log in self.directory.logs.values()
        ):
            self.disk.faults.clear()
            return "failed"
        return what

    def plan_fault_of_this(self) -> str:
        self.plan_fault()
        return f"planned: {self.disk.faults[0].action} refused"

    def take_back(self) -> str:
        """Truncate: the disk runs full within an append, of which nothing may stay (I33)."""
        short = self.random.randrange(1, 900)
        self.disk.faults = [Fault("write", ENOSPC, path=".log", short=short)]
        self.append()
        self.disk.faults.clear()
        return "truncate"

    def move_start(self) -> str:
        for name, log in self.directory.logs.items():
            model = self.models[name]
            if isinstance(model, Asked) and log.flushed > log.start and log.on_disk:
                offset = Offset(self.random.randint(log.start, log.flushed))
                model.start_asked = max(model.start_asked, offset)
                done = self.directory.starts.move(log, offset)

                done.then(partial(_moved, done, model, offset))
                return f"start of {name} to {offset}"
        return "nothing"

    def delete(self) -> str:
        names = [name for name, log in self.directory.logs.items() if log.on_disk]
        if not names:
            return "nothing"
        name = self.random.choice(names)
        model = self.models.pop(name)
        topic_id = bytes(model.topic_id)
        self.deleting.add(topic_id)
        gone = self.directory.delete(name)

        def done() -> None:
            with suppress(DiskError):
                gone.result()
                self.gone.add(topic_id)

        gone.then(done)
        return f"delete {name}"

    # -- one state

    def found_in(self, files: dict[str, bytes], name: str) -> Stepwise:
        """A disk with these files and what must hold of them; its dice go by its `name`: which
        states were tried before must not change the history."""
        other = object.__new__(Stepwise)
        other.random = random.Random(name)
        other.disk = SimDisk(other.random.randrange(1 << 30))
        other.disk.root = folder_of(files)
        other.policy, other.epoch, other.ids = self.policy, self.epoch, self.ids
        other.models = {
            name: replace(model, batches=list(model.batches), refused=list(model.refused))
            for name, model in self.models.items()
        }
        other.given, other.seen = set(), Counter()
        other.deleting, other.gone = self.deleting, self.gone
        return other

    def cuts_of_recovery(self, files: dict[str, bytes], name: str) -> list[dict[str, bytes]]:
        """Truncate: what another power cut may leave while what recovery cuts is not synced."""
        other = self.found_in(files, name)
        other.disk.faults = [Fault("sync", path=".log", times=1 << 30)]
        with suppress(DiskError):
            other.start()
        if "truncate" not in unsettled(other.disk.root):
            return []
        states = list(crash_states(other.disk.root, other.random, 2))
        return other.random.sample(states, min(len(states), CUTS))

    def probe(self, files: dict[str, bytes], name: str, *, again: bool) -> Counter[str]:
        """Open a state and see that all holds; `again` with another cut during recovery."""
        other = self.found_in(files, name)
        if again:
            action = other.random.choice(RECOVERY_ACTIONS)
            other.disk.faults = [Fault(action, skip=other.random.randrange(4))]
            with suppress(DiskError):
                other.start()
            other.disk.faults.clear()
            other.disk.crash("any")
        other.start()
        other.check()
        other.directory.release()
        return other.seen

    def state(self, name: TopicPartition, log: Log) -> object:
        model = self.models[name]
        durable, asked = 0, 0
        if isinstance(model, Asked):
            durable, asked = model.start_durable, model.start_asked
        if not log.start:
            assert durable == 0, f"{name}: deleted records are back"
            return super().state(name, log)
        assert durable <= log.start <= asked, f"{name}: {log.start} is no start of it"
        hidden = [raw for raw in model.batches if _last(raw) < log.start]
        seen = replace(model, batches=[raw for raw in model.batches if _last(raw) >= log.start])
        content = self.content(log)
        assert seen.accept(content), f"{name}: not a part of what was written"
        model.batches = hidden + seen.batches
        flushed = max(model.flushed, log.start)
        assert flushed <= log.end, f"{name}: {flushed} was flushed, {log.end} is there"
        if log.end > log.start:
            model.cut(log.end)
        for batch in (BatchView(memoryview(raw)) for raw in seen.batches):
            at = max(batch.base_offset, log.start)
            if at >= log.end:
                break
            assert log.epochs.epoch_at(Offset(at)) == batch.leader_epoch
        self.check_indexes(log, replace(model, batches=self.below_start(log) + seen.batches))
        return content, log.epochs.entries(), log.start, log.end, log.failed

    def below_start(self, log: Log) -> list[bytes]:
        """What the files hold that nobody reads any more: what was refused may be among it."""
        found = []
        blocked, self.disk.on_loop = self.disk.on_loop, False
        for segment in log.segments:
            raw, at = segment.log.read(0, segment.size), 0
            while at < len(raw):
                batch = BatchView(memoryview(raw), at)
                if batch.last_offset < log.start:
                    found.append(raw[at : at + batch.length])
                at += batch.length
        self.disk.on_loop = blocked
        return found


def unsettled(root: Folder) -> set[str]:
    """The operations of which a power cut may leave any part: no sync has settled them."""
    found: set[str] = set()
    folders = [(root, "")]
    while folders:
        folder, path = folders.pop()
        for change in folder.pending:
            old, name = (change.source, change.target) if isinstance(change, Rename) else ("", "")
            name = name or (change.name if isinstance(change, Link | Unlink) else "")
            if name.endswith("-delete") or isinstance(change, Unlink):
                found.add("delete")
            elif "checkpoint" in name or "checkpoint" in old:
                found.add("checkpoint")
            elif name.endswith(".log"):
                found.add("roll")
        for name, below in folder.names.items():
            if isinstance(below, Folder):
                folders.append((below, f"{path}/{name}"))
            elif name.endswith(".log"):
                changes = below.pending
                found |= {"append"} if any(isinstance(one, Write) for one in changes) else set()
                # A file that is made is cut to nothing, too: that is no truncation.
                found |= {"truncate"} if any(isinstance(one, Cut) for one in changes) else set()
    return found


def _last(raw: bytes) -> int:
    return int(BatchView(memoryview(raw)).last_offset)


def _moved(done: Pending[None], model: Asked, offset: int) -> None:
    with suppress(DiskError):
        done.result()
        model.start_durable = max(model.start_durable, offset)


def try_history(seed: int, tried: set[int], seen: Counter[str]) -> None:
    """Go through one history, and at each step through the states not tried before."""
    history = Stepwise(seed)
    dice = random.Random(seed)
    what = "start"
    for number in range(history.random.randrange(8, 40)):
        history.note_flushed()
        operations = unsettled(history.disk.root)
        for at, files in enumerate(crash_states(history.disk.root, dice, DRAWN)):
            # What must be there belongs to the state: the same files later may miss something.
            key = hash(
                (frozenset(files.items()), tuple(m.flushed for m in history.models.values()))
            )
            if key in tried:
                continue
            tried.add(key)
            seen.update(f"{one} unsettled" for one in operations)
            try:
                name = f"{seed} {number} {at}"
                seen += history.probe(files, name, again=at % 8 == 0)
                cuts = history.cuts_of_recovery(files, name) if at % CUTS_EVERY == 1 else []
                for each, cut in enumerate(cuts):
                    seen += history.probe(cut, f"{name} {each}", again=False)
                    seen["cut by recovery"] += 1
            except BaseException:
                print(f"\nstep {number} ({what}), state {at}")
                raise
        # A deletion is settled soon, so that by chance alone few states have one under way.
        what = history.delete() if number == DELETES_AT and seed % 2 == 0 else history.step()
        seen[what.split(" ")[0]] += 1
        if what == "failed":
            return


@pytest.mark.parametrize("part", range(STATES // STATES_PER_TEST))
def test_i27_i31_every_state_after_a_power_cut_recovers_to_a_legal_prefix(part):
    tried: set[int] = set()
    seen: Counter[str] = Counter()
    seed = 1_000_000 * part
    only = os.environ.get("OTTLA_SEED")
    if only is not None:
        if int(only) // 1_000_000 != part:
            pytest.skip("OTTLA_SEED names a history of another part")
        with named_by(int(only)):
            try_history(int(only), tried, seen)
        return
    while len(tried) < STATES_PER_TEST:
        with named_by(seed):
            try_history(seed, tried, seen)
        seed += 1
    shares = ", ".join(f"{seen[one]} {one}" for one in LEAST)
    print(f"\n{len(tried)} states of {seed % 1_000_000} histories ({shares}): {dict(seen)}")
    assert seen["TORN_TAIL"], seen


def test_i27_states_of_each_operation_are_among_them():
    """Append, roll, checkpoint, truncate (taken back, or cut by recovery) and delete."""
    tried: set[int] = set()
    seen: Counter[str] = Counter()
    for seed in range(FIRST_OF_EACH, FIRST_OF_EACH + HISTORIES_MAX):
        with named_by(seed):
            try_history(seed, tried, seen)
        if all(seen[one] >= least for one, least in LEAST.items()):
            break
    print(f"\n{len(tried)} states: " + ", ".join(f"{seen[one]} {one}" for one in LEAST))
    assert {one: seen[one] for one, least in LEAST.items() if seen[one] < least} == {}
