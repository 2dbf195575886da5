"""A process that makes no progress is ended; one that does is left alone."""

from __future__ import annotations

import threading
import time

from pipelines.watchdog import Watchdog


def test_silence_ends_it_and_progress_does_not():
    ended = threading.Event()
    with Watchdog(0.4, ended.set) as watchdog:
        for _ in range(10):
            time.sleep(0.1)
            watchdog.feed()
        assert not ended.is_set()
        assert ended.wait(5)


def test_it_watches_only_while_the_work_lasts():
    ended = threading.Event()
    with Watchdog(0.1, ended.set):
        pass
    assert not ended.wait(0.4)
