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

ATTEMPTS = 4
FIRST_WAIT, GROWTH = 0.5, 4.0  # seconds before the second attempt, and how much longer each next

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
    wait = FIRST_WAIT if first_wait is None else first_wait
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
        wait *= GROWTH
    raise AssertionError("unreachable")
