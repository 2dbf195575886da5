"""Tasks over groups of files, of which some may end, or break, the process that opens them.

The process that dies takes its group along, so each file is tried again alone; and as it may be
another file that broke that process, once more in a new one. A file that ends even this can only
blame itself. Lost nodes say nothing against a file, and memory that others took hardly anything.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pipelines.storage import StorageError

logger = logging.getLogger(__name__)

LOSSES = 5  # of a node, or for want of memory, in a row, under the same files
IN_GROUP, ALONE, IN_NEW_PROCESS = range(3)

File = TypeVar("File")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Work:
    files: Sequence
    stage: int = IN_GROUP
    losses: int = 0


def outlive(
    function: Callable[..., Result],
    groups: Iterable[Sequence[File]],
    *arguments: object,
    memory: int,
) -> Iterator[tuple[Result | None, File | None]]:
    """What `function(group, *arguments, in_new)` gives, run in Ray tasks of so much `memory`.

    Pairs: a result and None, or None and a file that ended its process. `in_new` tells the
    function that its process was started for this one file: what is wrong there is the file's, and
    anywhere else it should `end_process` rather than believe an error of unknown kind. Raises
    StorageError as the function does, and NodeDiedError after LOSSES.
    """
    import ray
    from ray.exceptions import (
        LocalRayletDiedError,
        NodeDiedError,
        OutOfMemoryError,
        RayTaskError,
        WorkerCrashedError,
    )

    def begin(work: _Work) -> ray.ObjectRef:
        in_new = work.stage == IN_NEW_PROCESS
        task = ray.remote(**_new_process())(function) if in_new else ray.remote(function)
        task = task.options(max_retries=0, memory=memory)
        return task.remote(work.files, *arguments, in_new)

    pending = deque((work, begin(work)) for work in map(_Work, groups))
    while pending:
        work, task = pending.popleft()
        try:
            result = ray.get(task)
        except (NodeDiedError, LocalRayletDiedError, OutOfMemoryError) as error:
            if work.losses < LOSSES:
                reason = type(error).__name__
                logger.warning("%s under %s, which is begun again", reason, work.files[0])
                again = replace(work, losses=work.losses + 1)
                pending.append((again, begin(again)))
                continue
            if not isinstance(error, OutOfMemoryError):
                raise
        except WorkerCrashedError:
            pass
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, StorageError) else error from error
        else:
            yield result, None
            continue
        if work.stage == IN_NEW_PROCESS:
            yield None, work.files[0]
        else:
            alone = [_Work([file], work.stage + 1) for file in work.files]
            pending.extend((one, begin(one)) for one in alone)


def _new_process() -> dict[str, object]:
    """Options of a remote function whose every call is to have a process that nobody used."""
    # (Ray takes no process of another environment, and max_calls ends each after its first call.)
    environment = {"env_vars": {"CSSTA_NEW_PROCESS": uuid.uuid4().hex}}
    return {"max_calls": 1, "runtime_env": environment}
