"""The line that says how many transactions the metadata store had: believed as a whole, or not."""

import pytest

from ottla.host.store_mark import Mark, MarkFile, read_mark


@pytest.fixture
def path(tmp_path) -> str:
    return f"{tmp_path}/store.sqlite"


def write(path, *marks):
    file = MarkFile(path, durable=False)
    for mark in marks:
        file.write(mark)
    file.close()


def test_what_is_read_is_the_last_that_was_written(path):
    assert read_mark(path) is None
    write(path, Mark(999, 4_294_967_295), Mark(1_000, 7))
    assert read_mark(path) == Mark(1_000, 7)
    write(path, Mark((1 << 63) - 1, 0))
    assert read_mark(path) == Mark((1 << 63) - 1, 0)


def test_a_mark_lies_within_one_sector_and_has_one_length():
    assert {len(Mark(n, n).encode()) for n in (0, 1, 4_294_967_295)} == {59}


def test_a_mark_with_any_byte_wrong_or_missing_is_none(path):
    good = Mark(123, 456).encode()
    bad = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    for raw in (*bad, *(good[:at] for at in range(len(good))), good + b"\0"):
        with open(f"{path}-last", "wb") as file:
            file.write(raw)
        assert read_mark(path) is None, raw


def test_what_a_damaged_one_has_too_much_is_cut(path):
    with open(f"{path}-last", "wb") as file:
        file.write(b"x" * 1000)
    write(path, Mark(1, 2))
    assert read_mark(path) == Mark(1, 2)
