"""Ending a process whose native code hangs: nothing else stops a decoder in an endless loop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def end_process() -> None:
    """End this process at once, its native threads included; Ray starts another for its task."""
    os._exit(1)


class Watchdog:
    """Context manager that ends this process unless `feed` is called every `seconds`.

    Ray starts the process again; who counts the starts finds out what hangs.
    """

    def __init__(self, seconds: float, end: Callable[[], None] = end_process) -> None:
        self._seconds, self._end = seconds, end
        self._fed = time.monotonic()
        self._over = threading.Event()

    def feed(self, *_: object) -> None:
        """Progress was made."""
        self._fed = time.monotonic()

    _waits = 0  # threads of this process that wait for what has limits of its own
    _lock = threading.Lock()

    @classmethod
    @contextmanager
    def paused(cls) -> Iterator[None]:
        """While this lasts no watchdog of this process ends it.

        For transfers, whose client gives up by itself, and for locks, whose holder is watched.
        """
        with cls._lock:
            cls._waits += 1
        try:
            yield
        finally:
            with cls._lock:
                cls._waits -= 1

    def __enter__(self) -> Watchdog:
        self.feed()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._seconds / 4)):
            if Watchdog._waits:
                self.feed()
            if time.monotonic() - self._fed > self._seconds:
                self._end()
                return
