"""Every byte of the sparse indexes gone wrong, and what is then found by them (I28, I29).

test_every_damaged_byte.py reads a log from its beginning, for which nobody needs an index. Here
reads begin everywhere, records are asked for by time, readers of committed records ask what of
their slice was taken back, and retention asks how old a segment is: each answer is what it is with
sound indexes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pytest

from ottla.core.model import FileSlice, Offset
from ottla.storage.checked import Cold
from ottla.storage.log import Log
from ottla.storage.reading import LogPosition, TimeHit
from tests.sim.test_every_damaged_byte import HURT, STOPS, World, files_of, image

T = TypeVar("T")
SIZES = (700, 3000)
KINDS = (".index", ".timeindex")


def _answer(world: World, ask: Callable[[], T | Cold]) -> T:
    while isinstance(found := ask(), Cold):
        found.bring(world.disk)
        world.settle()
        found.slice.release()
    return found


def _records(world: World, log: Log, bound: LogPosition, stop: str) -> dict[str, object]:
    """What a read from each fourth batch gives, and what was taken back and it is not told of."""
    answers: dict[str, object] = {}
    for offset in range(log.start, log.end, 12):
        for size in SIZES:
            piece = _answer(world, lambda o=offset, s=size: log.read(Offset(o), s, bound))
            assert isinstance(piece, FileSlice), piece
            end = piece.position + piece.length
            answers[f"read {offset} {size}"] = piece.file.path, piece.position, end
            told = _answer(world, lambda o=offset, p=piece: log.aborted_in(Offset(o), p))
            answers[f"hidden {offset} {size}"] = [
                one
                for one in image(stop).aborted[HURT]
                if one.last_offset >= offset and one not in told and _begins_in(log, one, piece)
            ]
            piece.release()
    return answers


def _begins_in(log: Log, one: object, piece: FileSlice) -> bool:
    first = one.first_offset  # type: ignore[attr-defined]
    segment = next(segment for segment in log.segments if segment.log is piece.file)
    place = segment.locate(first, segment.size)
    return place is not None and place.position < piece.position + piece.length


def _times(world: World, log: Log, bound: LogPosition) -> dict[str, object]:
    """Where the first record of each time lies, and how old the segments are."""
    answers: dict[str, object] = {}
    for time in (*range(998, 1080, 2), 1999, 2000, 2001):
        hit = _answer(world, lambda t=time: log.offset_for_time(t, bound))
        answers[f"time {time}"] = None if hit is None else hit.base_offset
        if isinstance(hit, TimeHit):
            hit.slice.release()
    newest = _answer(world, log.max_timestamp)
    assert isinstance(newest, TimeHit)
    answers["newest"] = newest.base_offset
    newest.slice.release()
    for segment in log.segments:
        assert _answer(world, segment.doubt) is None
        answers[f"age of {segment.base_offset}"] = segment.max_timestamp
    return answers


def answers_of(files: dict[str, bytes], stop: str) -> dict[str, object]:
    """All that is found by way of indexes."""
    world = World(files)
    log = world.directory.logs[HURT]
    bound = log.end_position()
    found = _records(world, log, bound, stop) | _times(world, log, bound)
    world.directory.release()
    return found


def _differing(stop: str, path: str, content: bytes, sound: dict[str, object]) -> list[str]:
    found = answers_of({**image(stop).files, path: content}, stop)
    return [
        f"{what}: {found[what]}, not {sound[what]}" for what in sound if found[what] != sound[what]
    ]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("suffix", KINDS)
def test_i29_what_an_index_leads_to_is_right_though_a_byte_of_it_is_not(stop, suffix):
    sound = answers_of(image(stop).files, stop)
    assert not any(found for what, found in sound.items() if what.startswith("hidden"))
    seen: Counter[str] = Counter()
    for path in files_of(stop, suffix):
        raw = image(stop).files[path]
        for at, byte in enumerate(raw):
            for wrong in {byte ^ 0x01, byte ^ 0x10, 0xFF} - {byte}:
                content = raw[:at] + bytes([wrong]) + raw[at + 1 :]
                seen[path] += 1
                differing = _differing(stop, path, content, sound)
                assert not differing, f"byte {at} of {path}, {byte:#x} -> {wrong:#x}: {differing}"
    print(f"\n{stop} stop: {dict(seen)}")
    assert seen


@pytest.mark.parametrize("stop", STOPS)
def test_i28_what_an_index_leads_to_is_right_though_its_file_was_cut(stop):
    sound = answers_of(image(stop).files, stop)
    for path in [path for suffix in KINDS for path in files_of(stop, suffix)]:
        raw = image(stop).files[path]
        for length in range(len(raw)):
            differing = _differing(stop, path, raw[:length], sound)
            assert not differing, f"{path} cut to {length} of {len(raw)} bytes: {differing}"
