"""A broker whose metadata store was lost: it says so, and goes on only when it is told at which price.

The files are those of a running broker, as kill -9 leaves them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ottla.cli.arguments import LogRepair
from ottla.cli.log_repair import run
from ottla.embedded import Broker
from ottla.host.sqlite_store import FILE_NAME, SqliteStore
from ottla.host.store_mark import SUFFIX
from ottla.node import StartError

WAL, MARK = f"{FILE_NAME}-wal", f"{FILE_NAME}{SUFFIX}"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    with Broker(folder / "own", config={"node.id": 7}) as broker:
        broker.create_topic("early", 2, configs={"retention.ms": "86400000"})
        broker.append("early", "x", partition=1)
        broker.create_topic("empty", 1)
        shutil.copy(folder / "own" / WAL, folder / "earlier-wal")
        broker.create_topic("late", 3, configs={"cleanup.policy": "compact"})
        broker.append("late", "y", key="k", partition=0)
        shutil.copytree(folder / "own", folder / "data")
    return folder


@pytest.fixture
def data(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed / "data", tmp_path / "data")
    return tmp_path / "data"


def starts(data: Path) -> list[str]:
    """The topics that a start finds; raises StartError."""
    with Broker(data) as broker:
        return sorted(broker.topics())


def repair(data: Path, **options: bool) -> int:
    return run(LogRepair(path=str(data), **options))


def remove(data: Path, *names: str) -> None:
    for name in names:
        (data / name).unlink()


def empty(data: Path) -> None:
    (data / FILE_NAME).write_bytes(b"")


def settle(data: Path) -> None:
    """Bring all that is in the log into the database, as a clean stop does."""
    SqliteStore(str(data / FILE_NAME)).close()


def deface(data: Path) -> None:
    raw = (data / FILE_NAME).read_bytes()
    assert b"86400000" in raw
    (data / FILE_NAME).write_bytes(raw.replace(b"86400000", b"86400001"))


def flip(data: Path, name: str, at: int) -> None:
    raw = bytearray((data / name).read_bytes())
    raw[at] ^= 1
    (data / name).write_bytes(raw)


LOSSES = {
    "emptied": (empty, "is empty, and had"),
    "removed": (lambda data: remove(data, FILE_NAME), "is missing"),
    "all removed": (lambda data: remove(data, FILE_NAME, WAL, MARK), "is missing"),
    "all emptied": (lambda data: (remove(data, WAL, MARK), empty(data)), "is missing, or empty"),
    "without its log": (lambda data: remove(data, WAL), "ends with transaction 0"),
    "log damaged": (lambda data: flip(data, WAL, 5000), "ends with transaction"),
    "no database": (lambda data: (settle(data), flip(data, FILE_NAME, 3)), "not a database"),
    "database damaged": (lambda data: (settle(data), deface(data)), "checksum doesn't fit"),
}


@pytest.mark.parametrize("how", LOSSES)
def test_i25_a_broker_without_its_metadata_store_says_so_and_changes_nothing(data, how):
    lose, said = LOSSES[how]
    lose(data)
    for _ in range(2):
        with pytest.raises(StartError, match=said) as raised:
            starts(data)
        assert "The directories hold 2 partitions of 2 topics" in str(raised.value)
        assert "ottla log repair" in str(raised.value)


@pytest.mark.parametrize("how", LOSSES)
def test_a_broker_goes_on_without_its_metadata_store_once_it_is_told_to(data, how, capsys):
    lose, _ = LOSSES[how]
    lose(data)
    assert repair(data) == 1
    told = capsys.readouterr().out
    assert "the directories hold 2 partitions of 2 topics: early, late" in told
    assert "--adopt lets the next start go on" in told
    with pytest.raises(StartError):
        starts(data)
    assert repair(data, adopt=True) == 0
    assert "the files are in" in capsys.readouterr().out
    assert repair(data) == 0
    for _ in range(2):
        with Broker(data) as broker:
            assert {"early", "late"} <= set(broker.topics())
            assert [one.value for one in broker.read("early")] == [b"x"]
            assert [one.value for one in broker.read("late")] == [b"y"]
    with Broker(data) as broker:
        assert broker.append("early", "z", partition=1).offset == 1


def test_what_the_metadata_store_had_earlier_is_kept(data, killed, capsys):
    """Its log was cut after the first topics: those have their options, and the empty one is there."""
    shutil.copy(killed / "earlier-wal", data / WAL)
    assert repair(data, json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["topics_in_directories"] == ["early", "late"]
    assert told["topics_remembered"] == 2
    assert "ends with transaction" in told["damage"]
    assert repair(data, adopt=True) == 0
    assert starts(data) == ["early", "empty", "late"]
    store = SqliteStore(str(data / FILE_NAME))
    options = {
        key: json.loads(one.value) for key, one in store.read("/cfg/t/").result().entries.items()
    }
    assert not store.read("/adopt").result().entries
    store.close()
    assert {"retention.ms": "86400000"} in options.values()
    assert {"retention.ms": "-1", "retention.bytes": "-1"} in options.values()


def test_a_store_that_is_whole_is_left_alone(data, capsys):
    before = {file: file.read_bytes() for file in data.glob(f"{FILE_NAME}*")}
    assert repair(data, adopt=True) == 0
    assert capsys.readouterr().out == "nothing to repair\n"
    assert {file: file.read_bytes() for file in data.glob(f"{FILE_NAME}*")} == before
    assert starts(data) == ["early", "empty", "late"]


def test_the_store_of_a_broker_that_runs_is_not_judged(tmp_path, capsys):
    with Broker(tmp_path / "data") as broker:
        broker.append("t", "x")
        remove(tmp_path / "data", MARK)
        assert repair(tmp_path / "data") == 0
    assert capsys.readouterr().out == "nothing to repair\n"
