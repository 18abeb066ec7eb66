"""What is removed when, one piece of work at a time."""

from __future__ import annotations

from ottla.core.ports import CreateFile, DiskError, MakeDirectory, UnlinkFile
from ottla.storage.removal import Removals
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault
from ottla.testing.simloop import SimLoop


class World:
    def __init__(self) -> None:
        self.disk = SimDisk(1)
        self.disk.perform_now([MakeDirectory("/d")])
        self.loop = SimLoop()
        self.failed: list[DiskError] = []
        self.removals = Removals(self.disk, self.loop, self.loop)
        self.removals.failed = self.failed.append

    def add(self, *names: str, delay_s: float = 0) -> None:
        self.disk.perform_now([CreateFile(f"/d/{name}") for name in names])
        self.removals.add([[UnlinkFile(f"/d/{name}")] for name in names], delay_s)

    @property
    def names(self) -> list[str]:
        return self.disk.names("/d")


def test_each_is_removed_when_it_is_due_the_earliest_first() -> None:
    world = World()
    world.add("late", delay_s=60)
    world.add("soon", delay_s=10)
    world.loop.advance(10)
    world.disk.run()
    assert world.names == ["late"]
    world.loop.advance(50)
    world.disk.run()
    assert world.names == []


def test_after_each_the_disk_rests_for_as_long_as_it_took() -> None:
    world = World()
    world.add("a", "b")
    world.loop.advance(3)  # the disk is slow
    world.disk.run()
    assert world.names == ["b"]
    world.loop.advance(2.9)
    assert not world.disk.busy
    world.loop.advance(0.1)
    world.disk.run()
    assert world.names == []


def test_where_room_is_needed_no_delay_is_kept_and_the_order_is() -> None:
    world = World()
    world.add("b", delay_s=60)
    world.add("a", delay_s=30)
    world.removals.hurry()
    world.disk.run()
    assert world.names == ["b"]
    world.loop.advance(0)
    world.disk.run()
    assert world.names == []


def test_what_could_not_be_removed_is_told_and_the_rest_goes_on() -> None:
    world = World()
    world.disk.faults = [Fault("remove")]
    world.add("a", "b")
    world.disk.run()
    world.loop.advance(0)
    world.disk.run()
    assert (world.names, len(world.failed)) == (["a"], 1)
