"""Lines of progress from other processes, shown in the driver's output as they come.

Ray can forward what workers print, but then forwards everything that any library prints there.
No job ends for want of these lines: where what holds them is lost, it goes on without them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger(__name__)

POLL_S = 0.5
FLUSH_S = 30.0


class Progress:
    """Sends lines to the driver from whichever process holds it."""

    def __init__(self, lines) -> None:
        self._lines = lines

    def say(self, line: str) -> None:
        self._lines.add.remote(line)

    def flush(self) -> None:
        """Wait until what this process has said is there or lost (calls are taken in order)."""
        import ray

        with suppress(ray.exceptions.RayError):
            ray.get(self._lines.flush.remote(), timeout=FLUSH_S)


@contextmanager
def relay(say: Callable[[str], None]) -> Iterator[Progress]:
    """While open, whatever `Progress.say` is told anywhere on the cluster is passed to `say`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Beside the driver, with which alone it may end. (A soft affinity does not keep it there.)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lines = ray.remote(num_cpus=0, scheduling_strategy=here)(_Lines).remote()
    ended, lost = threading.Event(), threading.Event()

    def take() -> bool:
        try:
            taken = ray.get(lines.take.remote(), timeout=FLUSH_S)
        except ray.exceptions.GetTimeoutError:
            return True  # (a busy machine)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            logger.warning("the job goes on without lines of progress: %s", reason)
            return False
        for line in taken:
            say(line)
        return True

    def follow() -> None:
        while not ended.wait(POLL_S):
            if not take():
                lost.set()
                return

    thread = threading.Thread(target=follow, daemon=True, name="progress")
    thread.start()
    try:
        yield Progress(lines)
    finally:
        ended.set()
        thread.join()
        if not lost.is_set():
            time.sleep(POLL_S)  # lines are sent without waiting: the last may be on their way
            take()
        ray.kill(lines)


class _Lines:
    def __init__(self) -> None:
        self._waiting: list[str] = []

    def add(self, line: str) -> None:
        self._waiting.append(line)

    def flush(self) -> None:
        pass

    def pid(self) -> int:
        return os.getpid()

    def take(self) -> list[str]:
        taken, self._waiting = self._waiting, []
        return taken
