"""The files that a job found bad: counted, named, and too many of them end it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pipelines.manifest import Rejected

logger = logging.getLogger(__name__)

NAMED = 5  # of the failures in a message
ATTEMPTS = 2  # with a file that ends the process which decodes it
CRASHED = "crashed"


class TooManyFailuresError(ValueError):
    """More files of a bucket are bad than `data.max_failures` allows; the message names some."""


class DecoderCrashError(ValueError):
    """A file ends the process that decodes it."""


def most_failures(max_failures: int | float | None, files: int) -> int | None:
    """How many bad files are tolerated among `files`; None: any number."""
    return int(max_failures * files) if isinstance(max_failures, float) else max_failures


def check_failures(failures: Sequence[Rejected], limit: int | None) -> None:
    """Raise TooManyFailuresError if more than `limit` files failed."""
    found: dict[str, str] = {}
    for bad in failures:
        found.setdefault(bad.uri, bad.message)
    if limit is None or len(found) <= limit:
        return
    named = "; ".join(list(found.values())[:NAMED])
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    raise TooManyFailuresError(
        f"{len(found)} files failed, and data.max_failures allows {limit}: {named}{more}. "
        "Mend or remove them, or raise data.max_failures"
    )


class Failures:
    """Counts what fails while clips are streamed, from whichever process met it. Needs Ray."""

    def __init__(self, limit: int | None = None, known: Sequence[Rejected] = ()) -> None:
        """`limit`: files that may fail, `known` among them, before `report` and `check` raise.

        Raises TooManyFailuresError if the `known` ones are too many already.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        check_failures(known, limit)
        self._limit, self._known = limit, tuple(known)
        self._seen: list[Rejected] = []
        self._lost = False
        # Beside the driver, with which alone it may end: other nodes come and go. (A soft affinity
        # does not keep it there.)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._log = ray.remote(num_cpus=0, scheduling_strategy=here)(_FailureLog).remote()

    def report(self, rejected: Rejected) -> None:
        """Add one. Raises TooManyFailuresError."""
        import ray

        # Waited for: whoever has seen the stream end must find every failure listed.
        with suppress(ray.exceptions.RayActorError):
            ray.get(self._log.add.remote(rejected))
            self.check()

    @contextmanager
    def attempt(self, task: str, uri: str) -> Iterator[None]:
        """Around whatever may end this process. A `task` that Ray starts again finds its attempts.

        Raises DecoderCrashError instead of trying a file once more that was tried often enough.
        """
        import ray

        try:
            tries = ray.get(self._log.begin.remote(task, uri))
        except ray.exceptions.RayActorError:
            tries = 1
        if tries > ATTEMPTS:
            raise DecoderCrashError(
                f"{uri}: the decoder crashed or hung, {ATTEMPTS} times; re-encode it"
            )
        try:
            yield
        finally:
            self._log.end.remote(task, uri)

    def check(self) -> None:
        """Raise TooManyFailuresError once there are too many."""
        if self._limit is not None:
            check_failures([*self._known, *self.list()], self._limit)

    def list(self) -> list[Rejected]:
        """One entry per file and reason, sorted, without the known ones.

        Where the log is lost, what this process knew of it last: no job ends for want of a list.
        """
        import ray

        try:
            self._seen = ray.get(self._log.entries.remote())
        except ray.exceptions.RayActorError as error:
            if not self._lost:
                reason = str(error).strip().splitlines()[0]
                logger.warning("failed files are no longer counted: %s", reason)
            self._lost = True
        return self._seen


class _FailureLog:
    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Rejected] = {}
        self._begun: dict[tuple[str, str], int] = {}

    def begin(self, task: str, uri: str) -> int:
        """How often the task has begun with the file by now, never having ended."""
        if (uri, CRASHED) in self._entries:
            return ATTEMPTS + 1
        self._begun[task, uri] = self._begun.get((task, uri), 0) + 1
        return self._begun[task, uri]

    def end(self, task: str, uri: str) -> None:
        self._begun.pop((task, uri), None)

    def add(self, rejected: Rejected) -> None:
        self._entries.setdefault((rejected.uri, rejected.reason), rejected)

    def entries(self) -> list[Rejected]:
        return [self._entries[key] for key in sorted(self._entries)]

    def pid(self) -> int:
        return os.getpid()
