"""The timer wheel, over a loop whose clock the test moves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.host.timers import TICK_S, TimerWheel


class Handle:
    def __init__(self, when, callback):
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class ManualLoop:
    """As much of an event loop as the wheel asks for. Counts how often it wakes."""

    def __init__(self):
        self.now = 1000.0
        self.handles = []
        self.wakes = 0

    def time(self):
        return self.now

    def call_at(self, when, callback):
        handle = Handle(when, callback)
        self.handles.append(handle)
        return handle

    def call_soon(self, callback):
        return self.call_at(self.now, callback)

    @property
    def armed(self):
        return [handle for handle in self.handles if not handle.cancelled]

    def advance(self, to):
        while due := [handle for handle in self.armed if handle.when <= to]:
            handle = min(due, key=lambda handle: handle.when)
            self.handles.remove(handle)
            self.now = max(self.now, handle.when)
            self.wakes += 1
            handle.callback()
        self.now = to


@pytest.fixture
def loop():
    return ManualLoop()


@settings(max_examples=60, print_blob=True)
@given(seed=st.integers(0, 2**32))
def test_each_call_comes_once_in_time_unless_cancelled(seed):
    rng = random.Random(seed)
    loop = ManualLoop()
    wheel = TimerWheel(loop)
    came = {}
    wanted = {}
    entries = {}
    for number in range(200):
        delay = rng.choice([0, 0.001, 0.5, 0.5, 30, rng.random() * 5])

        def call(number=number):
            assert number not in came
            came[number] = loop.now

        entries[number] = wheel.after(delay, call)
        wanted[number] = loop.now + delay
        if rng.random() < 0.5:
            victim = rng.choice(list(entries))
            entries[victim].cancel()
            if victim not in came:
                wanted.pop(victim, None)
        if rng.random() < 0.3:
            loop.advance(loop.now + rng.random())
        assert len(loop.armed) <= 1
        assert len(wheel) == len(wanted) - len(came)
    loop.advance(loop.now + 40)
    assert came.keys() == wanted.keys()
    for number, at in came.items():
        assert wanted[number] <= at <= wanted[number] + 2 * TICK_S
    assert loop.armed == []


def test_cancelled_entries_are_not_kept(loop):
    wheel = TimerWheel(loop)
    for _ in range(1000):
        wheel.after(30, lambda: None).cancel()
    assert len(wheel) == 0
    loop.advance(loop.now + 31)
    assert loop.wakes <= 1
    assert loop.armed == []


def test_an_idle_wheel_does_not_wake_the_loop(loop):
    wheel = TimerWheel(loop)
    wheel.after(1, lambda: None)
    loop.advance(loop.now + 1000)
    assert loop.wakes == 1


def test_a_call_may_cancel_another_of_the_same_tick(loop):
    wheel = TimerWheel(loop)
    came = []
    entries = []
    wheel.after(1, lambda: entries.pop().cancel())
    entries.append(wheel.after(1, lambda: came.append(1)))
    loop.advance(loop.now + 2)
    assert came == []


def test_a_call_may_add_another(loop):
    wheel = TimerWheel(loop)
    came = []
    wheel.after(0, lambda: wheel.after(0, lambda: came.append(loop.now)))
    loop.advance(loop.now + 1)
    assert len(came) == 1


def test_a_call_that_raises_does_not_take_the_others_with_it(loop):
    wheel = TimerWheel(loop)
    came = []

    def fail():
        raise ZeroDivisionError

    wheel.after(1, fail)
    wheel.after(1, lambda: came.append(1))
    wheel.after(2, lambda: came.append(2))
    with pytest.raises(ZeroDivisionError):
        loop.advance(loop.now + 3)
    loop.advance(loop.now + 3)
    assert came == [1, 2]


def test_cancelling_after_the_call_is_harmless(loop):
    wheel = TimerWheel(loop)
    entry = wheel.after(0, lambda: None)
    loop.advance(loop.now + 1)
    entry.cancel()
    entry.cancel()


def test_closing_forgets_everything_even_from_within_a_call(loop):
    wheel = TimerWheel(loop)
    came = []
    wheel.after(1, wheel.close)
    wheel.after(1, lambda: came.append(1))
    wheel.after(2, lambda: came.append(2))
    loop.advance(loop.now + 3)
    assert came == []
    assert loop.armed == []
