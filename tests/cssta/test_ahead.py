"""Threads between decoder, flow, networks and encoder: order, bounds, errors, and an end."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from cssta.ahead import ahead


def threads() -> int:
    return sum(thread.name == "ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("length", [1, 3, 100])
def test_items_come_in_order_and_bounded(length: int):
    made = []

    def items():
        for number in range(30):
            made.append(number)
            yield number

    seen = []
    for number in ahead(items(), length):
        seen.append(number)
        time.sleep(0.001)
        assert len(made) <= len(seen) + length + 1
    assert seen == list(range(30))
    assert threads() == 0


def test_errors_come_after_the_items_before_them():
    def items():
        yield 1
        raise ValueError("broken")

    found = ahead(items(), 4)
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)
    assert threads() == 0


def test_closing_ends_the_thread_and_what_it_reads():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with closing(ahead(ahead(items(), 2), 2)) as found:
        next(found)
    assert closed.wait(5) and threads() == 0
