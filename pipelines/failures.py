"""The files that a job found bad: counted, named, and too many of them end it."""

from __future__ import annotations

import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy

from pipelines.data_sets import is_still
from pipelines.last_words import LastWords, found
from pipelines.manifest import Rejected

logger = logging.getLogger(__name__)

NAMED = 5  # of the failures in a message
ATTEMPTS = 2  # with a file that ends the process which decodes it
UNEXPLAINED = 20
"""Such attempts of which nothing tells why the process ended. It may have been killed for want of
memory, by this file or others; in the end the job must go on."""
CRASHED = "crashed"
MASK = "mask"  # reason: not the video, but the object masks that a clip should have had
FILES, PICTURES, MASKS = KINDS = ("files", "pictures", "mask sequences")


class TooManyFailuresError(ValueError):
    """More files of a bucket are bad than `data.max_failures` allows; the message names some."""


class DecoderCrashError(ValueError):
    """A file ends the process that decodes it."""


def most_failures(max_failures: int | float | None, files: int) -> int | None:
    """How many bad files are tolerated among `files`; None: any number."""
    return int(max_failures * files) if isinstance(max_failures, float) else max_failures


def kind_of(bad: Rejected) -> str:
    """One of KINDS: there may be ten videos beside a million pictures."""
    if bad.reason == MASK:
        return MASKS
    return PICTURES if is_still(bad.uri) else FILES


def check_failures(failures: Sequence[Rejected], limit: int | None, what: str = FILES) -> None:
    """Raise TooManyFailuresError if more than `limit` of them failed."""
    found: dict[str, str] = {}
    for bad in failures:
        found.setdefault(bad.uri, bad.message)
    if limit is None or len(found) <= limit:
        return
    named = "; ".join(list(found.values())[:NAMED])
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    raise TooManyFailuresError(
        f"{len(found)} {what} failed, and data.max_failures allows {limit}: {named}{more}. "
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
        self._limits, self._known = {FILES: limit}, tuple(known)
        self._seen: list[Rejected] = []
        self._lost = False
        self._name = uuid.uuid4().hex
        # Beside the driver, with which alone it may end: other nodes come and go. (A soft affinity
        # does not keep it there.)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._log = ray.remote(num_cpus=0, scheduling_strategy=here)(_FailureLog).remote()

    def counting_apart(self, **limits: int | None) -> Failures:
        """The same list; in it pictures and mask sequences have limits of their own.

        `limits`: by `pictures` and `masks`; without one they count among the files.
        """
        other = copy(self)
        names = {"pictures": PICTURES, "masks": MASKS}
        other._limits = self._limits | {names[kind]: limit for kind, limit in limits.items()}
        return other

    def report(self, rejected: Rejected) -> None:
        """Add one. Raises TooManyFailuresError."""
        import ray

        group = self._counted_as(kind_of(rejected))
        limit = self._limits[group]
        # Waited for: whoever has seen the stream end must find every failure listed.
        with suppress(ray.exceptions.RayActorError):
            found = ray.get(self._log.add.remote(rejected))
            same = [kind for kind in found if self._counted_as(kind) == group]
            # (The list is fetched only when there may be too many: it can be long.)
            if limit is not None and len(self._known) + sum(found[kind] for kind in same) > limit:
                self.check()

    @contextmanager
    def attempt(self, task: str, uri: str) -> Iterator[LastWords]:
        """Around whatever may end this process. A `task` that Ray starts again finds its attempts.

        Those count that the file ended (see `LastWords`), and not those that a lost node ended.
        Raises DecoderCrashError instead of trying a file once more that was tried often enough.
        """
        import ray

        key = f"{self._name}/{task}/{uri}"
        here = ray.get_runtime_context().get_node_id()
        ended, unexplained, words = 0, 0, None
        with suppress(ray.exceptions.RayActorError):
            ended, unexplained, there = ray.get(self._log.begin.remote(task, uri, here))
            if there is not None:  # the attempt before ended with its process
                words = found(key) if there == here else _found_on(there, key)
                by_file = None if words is None else bool(words)
                ended, unexplained = ray.get(self._log.died.remote(task, uri, by_file))
        if ended >= ATTEMPTS:
            last = f", at last by {words}" if words else ""
            raise DecoderCrashError(
                f"{uri}: the decoder crashed or hung, {ATTEMPTS} times{last}; re-encode it"
            )
        if unexplained >= UNEXPLAINED:
            raise DecoderCrashError(
                f"{uri}: what decoded it was killed {UNEXPLAINED} times, as for want of memory; "
                "re-encode it smaller"
            )
        try:
            with LastWords(key) as last_words:
                yield last_words
        finally:
            self._log.end.remote(task, uri)

    def check(self) -> None:
        """Raise TooManyFailuresError once there are too many."""
        if all(limit is None for limit in self._limits.values()):
            return
        failed = [*self._known, *self.list()]
        for kind, limit in self._limits.items():
            group = [bad for bad in failed if self._counted_as(kind_of(bad)) == kind]
            check_failures(group, limit, kind)

    def _counted_as(self, kind: str) -> str:
        return kind if kind in self._limits else FILES

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


def _found_on(node: str, key: str) -> str | None:
    """The last words on another node; None: it is gone, or does not answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    look = ray.remote(num_cpus=0, scheduling_strategy=there, max_retries=0)(found)
    try:
        return ray.get(look.remote(key), timeout=60)
    except ray.exceptions.RayError:
        return None


class _FailureLog:
    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Rejected] = {}
        self._begun: dict[tuple[str, str], str] = {}
        self._deaths: dict[tuple[str, str], tuple[int, int]] = {}
        self._kinds: Counter[str] = Counter()

    def begin(self, task: str, uri: str, node: str) -> tuple[int, int, str | None]:
        """Attempts that the file ended, those that nobody knows what ended, and the node of the
        one before this, if its end is not known yet."""
        if (uri, CRASHED) in self._entries:
            return ATTEMPTS, 0, None
        there = self._begun.get((task, uri))
        self._begun[task, uri] = node
        return (*self._deaths.get((task, uri), (0, 0)), there)

    def died(self, task: str, uri: str, by_file: bool | None) -> tuple[int, int]:
        """The attempt before ended its process; None: its node."""
        ended, unexplained = self._deaths.get((task, uri), (0, 0))
        if by_file is not None:
            ended, unexplained = ended + by_file, unexplained + (not by_file)
        self._deaths[task, uri] = ended, unexplained
        return ended, unexplained

    def end(self, task: str, uri: str) -> None:
        self._begun.pop((task, uri), None)
        self._deaths.pop((task, uri), None)

    def add(self, rejected: Rejected) -> dict[str, int]:
        """How many there are of each kind by now."""
        if (rejected.uri, rejected.reason) not in self._entries:
            self._entries[rejected.uri, rejected.reason] = rejected
            self._kinds[kind_of(rejected)] += 1
        return dict(self._kinds)

    def entries(self) -> list[Rejected]:
        return [self._entries[key] for key in sorted(self._entries)]

    def pid(self) -> int:
        return os.getpid()
