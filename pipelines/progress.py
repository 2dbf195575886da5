"""Lines of progress from other processes, shown in the driver's output as they come.

Ray can forward what workers print, but then forwards everything that any library prints there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL_S = 0.5


class Progress:
    """Sends lines to the driver from whichever process holds it."""

    def __init__(self, lines) -> None:
        self._lines = lines

    def say(self, line: str) -> None:
        self._lines.add.remote(line)

    def flush(self) -> None:
        """Wait until what this process has said is there (its calls are taken in order)."""
        import ray

        ray.get(self._lines.flush.remote())


@contextmanager
def relay(say: Callable[[str], None]) -> Iterator[Progress]:
    """While open, whatever `Progress.say` is told anywhere on the cluster is passed to `say`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # Beside the driver, with which alone it may end.
    lines = ray.remote(num_cpus=0, scheduling_strategy=here)(_Lines).remote()
    ended = threading.Event()

    def take() -> None:
        for line in ray.get(lines.take.remote()):
            say(line)

    def follow() -> None:
        while not ended.wait(POLL_S):
            take()

    thread = threading.Thread(target=follow, daemon=True, name="progress")
    thread.start()
    try:
        yield Progress(lines)
    finally:
        ended.set()
        thread.join()
        time.sleep(POLL_S)  # lines are sent without waiting: the last may still be on their way
        take()
        ray.kill(lines)


class _Lines:
    def __init__(self) -> None:
        self._waiting: list[str] = []

    def add(self, line: str) -> None:
        self._waiting.append(line)

    def flush(self) -> None:
        pass

    def take(self) -> list[str]:
        taken, self._waiting = self._waiting, []
        return taken
