"""`ottla log repair` on real files: what it says, what it gives up, and that the log serves again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.cli.arguments import LogRepair
from ottla.cli.errors import BadInput, CommandError
from ottla.cli.log_files import new_aside
from ottla.cli.log_repair import run
from ottla.cluster import keys
from ottla.cluster.image import TopicImage
from ottla.cluster.store import Put
from ottla.core.model import TopicPartition
from ottla.host.lock import lock_directory
from ottla.host.sqlite_store import FILE_NAME, SqliteStore
from ottla.records.batch import BatchView
from ottla.records.builder import build_batch
from ottla.records.crc import crc32c
from ottla.records.reader import Record
from ottla.storage.checkpoints import CLEANED
from ottla.testing.simimage import files_below
from tests.sim.test_every_damaged_byte import HURT, IDS, WELL, World, image

SEGMENT = "/data/hurt-0/00000000000000000000.log"


def batches(content: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(content):
        length = BatchView(memoryview(content), at).length
        found.append(content[at : at + length])
        at += length
    return found


@pytest.fixture(params=["clean", "unclean"])
def stop(request) -> str:
    return request.param


@pytest.fixture
def data(tmp_path: Path, stop: str) -> Path:
    """A data directory whose eleventh batch has a byte gone wrong."""
    files = dict(image(stop).files)
    raw = bytearray(files[SEGMENT])
    raw[sum(map(len, batches(bytes(raw))[:10])) + 63] ^= 1
    files[SEGMENT] = bytes(raw)
    for path, content in files.items():
        file = tmp_path / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    add_store(tmp_path / "data")
    return tmp_path / "data"


def add_store(data: Path, policy: str = "") -> None:
    """A metadata store that is whole, and has HURT's topic with such a policy if one is given."""
    store = SqliteStore(str(data / FILE_NAME))
    puts = [Put(keys.CLUSTER, keys.encode({"id": "c"}))]
    if policy:
        configs = {"cleanup.policy": policy}
        puts += keys.put_topic(TopicImage(HURT.topic, IDS[HURT], (), configs))
    store.transact([], puts)
    store.close()


def contents(data: Path) -> dict[str, bytes]:
    return {
        f"/{file.relative_to(data.parent)}": file.read_bytes()
        for file in data.rglob("*")
        if file.is_file()
    }


def repair(data: Path, **how: bool) -> int:
    return run(LogRepair(path=str(data), **how))


def test_without_being_told_how_it_only_says_what_it_would_cost(data, capsys):
    before = contents(data)
    assert repair(data) == 1
    assert contents(data) == before
    said = capsys.readouterr().out
    assert "hurt-0: 00000000000000000000.log is damaged from byte" in said
    assert "--cut gives up" in said
    assert "well" not in said


@pytest.mark.parametrize("how", ["cut", "skip"])
def test_a_repaired_partition_serves_what_was_not_given_up(data, stop, how, capsys):
    damaged = (data / "hurt-0/00000000000000000000.log").read_bytes()
    assert repair(data, **{how: True}) == 0
    assert "kept in" in capsys.readouterr().out
    whole = batches(image(stop).contents[HURT])
    kept = whole[:10] if how == "cut" else whole[:10] + whole[11:]
    for _ in range(2):
        world = World(contents(data))
        for key, expected in ((HURT, b"".join(kept)), (WELL, image(stop).contents[WELL])):
            served, failed = world.read(world.directory.logs[key])
            assert not failed, key
            assert served == expected, key
        log = world.directory.logs[HURT]
        assert log.end == BatchView(memoryview(whole[-1])).last_offset + 1, "no offset is reused"
        world.append(log, whole[0], 5)
        world.directory.release()
    evidence = [file for file in data.glob("hurt-0.damaged1-stray/*") if file.suffix == ".log"]
    assert damaged in [file.read_bytes() for file in evidence]
    assert repair(data) == 0
    assert "nothing to repair" in capsys.readouterr().out


def meet_the_damage(data: Path) -> None:
    """What a broker does that comes upon it, and is stopped afterwards."""
    world = World(contents(data))
    _, failed = world.read(world.directory.logs[HURT])
    assert failed
    world.settle()
    world.directory.release()
    for path, content in files_below(world.disk.root).items():
        (data.parent / path.removeprefix("/")).write_bytes(content)


def meet_no_damage(data: Path, key: TopicPartition = HURT) -> None:
    world = World(contents(data))
    assert not world.read(world.directory.logs[key])[1]
    world.directory.release()


def is_usable(data: Path) -> bool:
    world = World(contents(data))
    usable = world.directory.logs[HURT].usable
    assert world.directory.logs[WELL].usable
    world.directory.release()
    return usable


@pytest.mark.parametrize("stop", ["clean"])
@pytest.mark.parametrize("how", ["cut", "skip"])
@pytest.mark.parametrize("left", [0, 1], ids=["no segment", "one batch of the last"])
def test_a_partition_that_ends_before_what_was_on_disk_can_be_used_again(data, how, left, capsys):
    """No byte of it is wrong: a broker refuses it, and so there must be a way out."""
    (data / SEGMENT.removeprefix("/data/")).write_bytes(image("clean").files[SEGMENT])
    *_, segment = sorted((data / "hurt-0").glob("*.log"))
    segment.write_bytes(b"".join(batches(segment.read_bytes())[:left]))
    if not left:
        for file in segment.parent.glob("0*.*"):
            file.unlink()
    assert not is_usable(data)
    assert repair(data) == 1
    assert "lacks what belongs at byte" in capsys.readouterr().out
    assert repair(data, **{how: True}) == 0
    assert is_usable(data)
    assert repair(data) == 0


@pytest.mark.parametrize("how", ["cut", "skip"])
def test_a_partition_that_lost_whole_batches_in_the_middle_can_be_used_again(data, how, capsys):
    first = data / SEGMENT.removeprefix("/data/")
    first.write_bytes(b"".join(batches(first.read_bytes())[:3]))
    assert len([*first.parent.glob("*.log")]) > 1, "something follows"
    size = first.stat().st_size
    meet_the_damage(data)
    assert not is_usable(data)
    assert repair(data) == 1
    told = f"{first.name} lacks what belongs at byte {size:,}: offset 9 on"
    assert told in capsys.readouterr().out
    assert repair(data, **{how: True}) == 0
    assert is_usable(data)
    assert repair(data) == 0


@pytest.mark.parametrize("how", ["cut", "skip"])
def test_a_partition_that_lost_its_first_segment_can_be_used_again(data, how, capsys):
    first, second, *_ = sorted((data / "hurt-0").glob("*.log"))
    for file in data.glob(f"hurt-0/{first.stem}.*"):
        file.unlink()
    assert not is_usable(data)
    assert repair(data) == 1
    told = f"{second.name} lacks what came before it: offset 0 on"
    assert told in capsys.readouterr().out
    assert repair(data, **{how: True}) == 0
    assert is_usable(data)
    assert repair(data) == 0


def without_batches(data: Path, *numbers: int, cleaned: str = "") -> Path:
    """The first segment of HURT, sound but for some batches that were taken out of it."""
    path = data / SEGMENT.removeprefix("/data/")
    whole = batches(image("clean").files[SEGMENT])
    path.write_bytes(b"".join(one for at, one in enumerate(whole) if at not in numbers))
    if cleaned == "lost":
        (data / CLEANED).unlink()
    elif cleaned == "damaged":
        (data / CLEANED).write_bytes(b"\xff")
    return path


@pytest.mark.parametrize("how", ["cut", "skip"])
@pytest.mark.parametrize("number", [0, 5])
def test_batches_that_are_gone_from_within_a_segment_are_damage_like_others(
    data, how, number, capsys
):
    path = without_batches(data, number)
    at = sum(map(len, batches(path.read_bytes())[:number]))
    meet_the_damage(data)
    assert not is_usable(data)
    assert repair(data) == 1
    told = f"{path.name} lacks what belongs at byte {at:,}: offset {3 * number} on"
    assert told in capsys.readouterr().out
    assert repair(data, **{how: True}) == 0
    assert is_usable(data)
    assert repair(data) == 0


@pytest.mark.parametrize("cleaned", ["", "lost", "damaged"])
def test_what_may_be_missing_of_a_topic_that_is_compacted_is_no_damage(data, cleaned, capsys):
    without_batches(data, 3, 5, cleaned=cleaned)
    add_store(data, "compact,delete")
    assert repair(data) == 0
    assert capsys.readouterr().out == "nothing to repair\n"


@pytest.mark.parametrize("how", ["cut", "skip"])
@pytest.mark.parametrize("cleaned", ["lost", "damaged"])
@pytest.mark.parametrize("policy", ["", "delete"], ids=["policy unknown", "compacted before"])
def test_where_nothing_tells_whether_it_was_compaction_nothing_is_called_damaged_or_given_up(
    data, cleaned, policy, how, capsys
):
    path = without_batches(data, 3, 5, cleaned=cleaned)
    add_store(data, policy)
    if policy:  # a batch of which compaction has left two records, its last offset as it was
        whole = batches(path.read_bytes())
        shrunk = bytearray(build_batch([Record(b"k"), Record(b"k")]))
        shrunk[23:27] = (2).to_bytes(4, "big")
        batch = BatchView(memoryview(shrunk))
        shrunk[17:21] = crc32c(batch.view[21:]).to_bytes(4, "big")
        path.write_bytes(bytes(shrunk) + b"".join(whole[1:]))
    before = path.read_bytes()
    if cleaned == "lost":
        meet_the_damage(data)
        assert not is_usable(data)
    assert repair(data) == 1
    told = "hurt-0: 6 offsets from 9 on left out: compacted away, or lost. cleaner-offset"
    assert told in capsys.readouterr().out
    assert repair(data, **{how: True}) == 0
    assert path.read_bytes() == before
    assert is_usable(data)
    meet_no_damage(data)
    assert repair(data) == 0


@pytest.mark.parametrize("cleaned", ["lost", "damaged"])
def test_what_a_topic_lacks_that_was_never_compacted_is_damage_whatever_else_is_lost(
    data, cleaned, capsys
):
    without_batches(data, 3, 5, cleaned=cleaned)
    add_store(data, "delete")
    assert repair(data) == 1
    said = capsys.readouterr().out
    assert "lacks what belongs at byte" in said
    assert "--skip gives up 6 offsets" in said


@pytest.mark.parametrize("cleaned", ["lost", "damaged"])
def test_to_repair_one_partition_calls_no_other_one_damaged_that_may_be_compacted(
    data, cleaned, capsys
):
    path = without_batches(data, 3, cleaned=cleaned)
    well = next(data.glob("well-0/*.log"))
    whole = batches(well.read_bytes())
    well.write_bytes(whole[0] + b"".join(whole[2:]))
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert repair(data, skip=True) == 0
    assert "well-0: 1 offset from 1 on left out" in capsys.readouterr().out
    assert repair(data) == 0
    assert capsys.readouterr().out == "nothing to repair\n"
    meet_no_damage(data, WELL)


@pytest.mark.parametrize("stop", ["clean"])
def test_a_directory_of_which_no_log_is_known_needs_no_repair(data, capsys):
    (data / "other-0").mkdir()
    for file in (data / "hurt-0").glob("0*.*"):
        file.unlink()
    (data / "recovery-point-offset-checkpoint").unlink()
    assert repair(data) == 0
    assert capsys.readouterr().out == "nothing to repair\n"


@pytest.mark.parametrize("stop", ["clean"])
@pytest.mark.parametrize("how", ["cut", "skip"])
def test_what_was_found_damaged_is_kept_out_of_use_until_it_is_repaired(data, stop, how):
    assert is_usable(data), "nobody has looked yet"
    meet_the_damage(data)
    assert not is_usable(data)
    assert repair(data) == 1
    assert not is_usable(data)
    assert repair(data, **{how: True}) == 0
    assert is_usable(data)


@pytest.mark.parametrize("stop", ["clean"])
def test_a_file_that_was_brought_back_is_used_again_when_somebody_says_so(data, stop, capsys):
    meet_the_damage(data)
    (data.parent / SEGMENT.removeprefix("/")).write_bytes(image(stop).files[SEGMENT])
    assert not is_usable(data)
    assert repair(data) == 1
    assert "there is none any more" in capsys.readouterr().out
    assert repair(data, skip=True) == 0
    assert is_usable(data)
    world = World(contents(data))
    assert world.read(world.directory.logs[HURT]) == (image(stop).contents[HURT], False)


def test_what_is_not_damaged_is_not_touched(tmp_path, capsys):
    for path, content in image("unclean").files.items():
        file = tmp_path / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    add_store(tmp_path / "data")
    before = contents(tmp_path / "data")
    assert repair(tmp_path / "data", cut=True) == 0
    after = contents(tmp_path / "data")
    assert {path: after[path] for path in before} == before
    assert "nothing to repair" in capsys.readouterr().out


def test_it_keeps_its_hands_off_a_directory_in_use(data):
    lock = lock_directory(str(data))
    try:
        with pytest.raises(CommandError, match="in use"):
            repair(data, cut=True)
    finally:
        lock.release()


def test_it_wants_one_way_or_the_other(data):
    with pytest.raises(BadInput):
        repair(data, cut=True, skip=True)


def test_what_is_given_up_of_a_topic_with_the_longest_of_names_has_a_directory_too(tmp_path):
    name = f"{'t' * 249}-0"
    first, second = new_aside(str(tmp_path), name), new_aside(str(tmp_path), name)
    assert first.endswith("t-0.damaged1-stray")
    assert second.endswith("t-0.damaged2-stray")
