"""Trying again what can pass later: a network that is away, a server that is busy."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipelines.storage import StorageError
from pipelines.watchdog import Watchdog

log = logging.getLogger(__name__)

ATTEMPTS = 4  # in some 10 s: where somebody waits to be told that an address is wrong
PATIENT_ATTEMPTS = 9  # in some 9 minutes: where it has worked, and to give up costs a video
FIRST_WAIT, GROWTH = 0.5, 4.0  # seconds before the second attempt, and how much longer each next
LONGEST_WAIT = 240  # times the first

Result = TypeVar("Result")


def with_retries(
    call: Callable[[], Result],
    *,
    attempts: int = ATTEMPTS,
    first_wait: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """What `call` returns; it is called again, after longer and longer waits, on passing errors.

    No watchdog of this process ends it meanwhile. Raises the last StorageError, or at
    once one that is not `transient`.
    """
    first = FIRST_WAIT if first_wait is None else first_wait
    wait = first
    for attempt in range(1, attempts + 1):
        try:
            with Watchdog.paused():
                return call()
        except StorageError as error:
            if not error.transient or attempt == attempts:
                raise
            log.warning("attempt %d of %d: %s", attempt, attempts, error)
        # Many actors that were refused together must not come back together.
        with Watchdog.paused():
            sleep(wait * random.uniform(0.5, 1.5))
        wait = min(wait * GROWTH, first * LONGEST_WAIT)
    raise AssertionError("unreachable")


def patiently(call: Callable[[], Result], *, sleep: Callable[[float], None] = time.sleep) -> Result:
    """`with_retries` for as long as an outage of a few minutes lasts."""
    return with_retries(call, attempts=PATIENT_ATTEMPTS, sleep=sleep)
