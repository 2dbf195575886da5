"""Putting a batch together on the driver: parts are counted, whole videos assembled and settled.

Plain: what runs on the cluster is given as functions.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from pipelines.batch_lease import LeaseError
from pipelines.batch_progress import BatchProgress
from pipelines.batch_record import VideoOutcome, VideoTask, failure
from pipelines.batch_units import PartResult

log = logging.getLogger(__name__)

LOST = "the cluster lost its work (a node or its processes died); run the batch again"


class Collector:
    """Takes results of parts in any order, and twice if need be; context manager.

    Args:
        tasks: all that results will come of.
        assemble: publishes a video whose parts are all staged; called in threads. LeaseError ends
            the batch, at the latest on leaving.
        record: stores what is to be stored of an outcome; called in threads.
        settle: takes each outcome once, from one thread at a time.
        give_up: told of a video that failed, so that its other parts are not done in vain, or that
            is all staged, so that none is done again (as Ray does where a node is lost).
        assemblers: videos that are assembled at the same time.
    """

    def __init__(
        self,
        tasks: Iterable[VideoTask],
        assemble: Callable[[VideoTask], VideoOutcome],
        record: Callable[[VideoTask, VideoOutcome], None],
        settle: Callable[[VideoTask, VideoOutcome], None],
        give_up: Callable[[str], None],
        assemblers: int,
        progress: BatchProgress,
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._assemble, self._record = assemble, record
        self._settle, self._give_up = settle, give_up
        self._done: dict[str, set[int]] = {name: set() for name in self._tasks}
        self._open = set(self._tasks)  # videos without an outcome that are not being assembled
        self._pool = ThreadPoolExecutor(assemblers, thread_name_prefix="assemble")
        self._running: list[Future] = []
        self._lock = threading.Lock()
        self._progress = progress

    def add(self, result: PartResult) -> None:
        """A part is staged, or cannot be."""
        name = result.name
        if name not in self._open:  # it failed already, or Ray did something twice
            return
        task = self._tasks[name]
        if result.reason:
            self._open.discard(name)
            self._give_up(name)
            self._start(self._end, task, failure(task, result.reason, result.message))
            return
        self._progress.add_part(task, result)
        self._done[name].add(result.number)
        if len(self._done[name]) == result.count:
            self._open.discard(name)
            self._give_up(name)
            self._start(self._finish, task)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._running.append(self._pool.submit(work, *arguments))

    def _finish(self, task: VideoTask) -> None:
        try:
            with self._progress.joining():
                outcome = self._assemble(task)
        except LeaseError:  # (the whole batch's end)
            raise
        except Exception as error:  # (of the cluster: what a video does wrong is an outcome)
            log.warning("%s: its assembly was lost", task.name, exc_info=error)
            outcome = failure(task, "lost", f"{LOST} ({type(error).__name__})")
        self._end(task, outcome)

    def _end(self, task: VideoTask, outcome: VideoOutcome) -> None:
        self._record(task, outcome)
        with self._lock:
            self._settle(task, outcome)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """Wait for what is being assembled; without an error, settle what was never reported."""
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is not None:
            return
        for future in self._running:
            future.result()
        for name in sorted(self._open):
            self._end(self._tasks[name], failure(self._tasks[name], "lost", LOST))
