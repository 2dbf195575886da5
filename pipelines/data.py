"""The training stream: planned clips (`ClipPlan`), decoded by Ray Data tasks (`load_clips`).

What travels between processes is two numbers per task until it decodes its clips, and then
fixed-shape uint8 frames and bool masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipelines.clip_loading import load_clips
from pipelines.clip_plan import ClipPlan, ClipRow, Share, substitutes
from pipelines.data_config import DataConfig
from pipelines.failures import Failures
from pipelines.watchdog import Watchdog

if TYPE_CHECKING:
    import ray
    import ray.data

CLIPS_PER_BLOCK = 4  # handed on as soon as they are there, so that a trainer starts early
BLOCKS_ON_THEIR_WAY = 16
SECONDS_PER_VISIT = 300.0  # for a few clips of one file; transfers have limits of their own
MEMORY_PER_TASK = 1024**3  # a decoder's read-ahead and a task's clips
STORE_SHARE = 0.25  # of the cluster's object store, for all streams of a stage together


def clip_stream(
    plan: ClipPlan,
    start: int,
    stop: int,
    share: Share | None = None,
    failures: Failures | None = None,
    stored: ray.ObjectRef | None = None,
) -> ray.data.Dataset:
    """Clips number `start` to `stop` - 1, of these the ones of `share`, in their order.

    Columns: frames uint8 (T, H, W, 3), masks bool (T, H, W), uri, number. A clip whose file fails
    is told to `failures` and replaced by its substitute, so every number comes. `stored`: the plan
    in the object store, where several streams share it. Raises (here or while it is read) as
    `plan_clips` and `load_clips` do, and TooManyFailuresError.
    """
    import ray
    import ray.data

    share = share or Share()
    plan.epoch(start // plan.cfg.clips_per_epoch)  # (what is wrong with the plan is told here)
    # Tasks of some seconds, so that starting one does not count, also for a worker's share of it.
    spans = plan.spans(start, stop, share.workers)
    dataset = ray.data.from_items(
        [{"start": first, "stop": last} for first, last in spans],
        override_num_blocks=len(spans) or 1,
    )
    context = dataset.context
    cfg = plan.cfg
    clip_bytes = (cfg.references + 1) * cfg.height * cfg.width * 4
    context.execution_options.preserve_order = True
    store = store_budget(plan) / share.workers
    # Several blocks of every task are on their way at once, beside the trainer's batches.
    context.target_max_block_size = max(
        min(CLIPS_PER_BLOCK * clip_bytes, int(store / BLOCKS_ON_THEIR_WAY)), clip_bytes
    )
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(object_store_memory=store)
    stored = stored or ray.put(plan)
    load = partial(_load, plan=stored, cfg=cfg, share=share, failures=failures)
    return dataset.map_batches(load, batch_size=None, memory=MEMORY_PER_TASK)


def store_budget(plan: ClipPlan) -> float:
    """Bytes of the object store for all streams of a plan, of which every node keeps a copy."""
    import ray

    share = ray.cluster_resources().get("object_store_memory", 0) * STORE_SHARE
    nodes = sum(node["Alive"] for node in ray.nodes())
    return max(share - nodes * plan.nbytes, share / 2)


def _load(
    batch: dict[str, np.ndarray],
    plan: ray.ObjectRef,
    cfg: DataConfig,
    share: Share,
    failures: Failures | None,
) -> Iterator[dict[str, np.ndarray]]:
    cv2.setNumThreads(1)
    report = failures.report if failures else (lambda rejected: None)

    def others(row: ClipRow) -> Iterator[ClipRow]:
        return substitutes(row, _plan(plan).manifest.videos, cfg)

    for start, stop in zip(batch["start"].tolist(), batch["stop"].tolist(), strict=True):
        rows = [row for row in _rows(plan, start, stop) if share.takes(row.number)]
        attempt = partial(failures.attempt, f"{share.rank}/{start}") if failures else nullcontext
        for row, clip in load_clips(rows, cfg, report, others, partial(_watched, attempt)):
            yield {
                "frames": clip["frames"][None],
                "masks": clip["masks"][None],
                "uri": np.array([row.uri]),
                "number": np.array([row.number]),
            }


@contextmanager
def _watched(attempt: Callable[[str], AbstractContextManager], uri: str) -> Iterator[None]:
    """One attempt with a file, at whose hanging end this process: nothing else stops a decoder."""
    with attempt(uri), Watchdog(SECONDS_PER_VISIT):
        yield


def _rows(plan: ray.ObjectRef, start: int, stop: int) -> list[ClipRow]:
    """As `ClipPlan.rows`; a process plans an epoch once, however many of its tasks it runs."""
    first, last = (number // _plan(plan).cfg.clips_per_epoch for number in (start, stop - 1))
    epochs = (_epoch(plan, number) for number in range(first, last + 1))
    return [row for rows in epochs for row in rows if start <= row.number < stop]


@lru_cache(maxsize=2)
def _plan(plan: ray.ObjectRef) -> ClipPlan:
    import ray

    return ray.get(plan)


@lru_cache(maxsize=4)
def _epoch(plan: ray.ObjectRef, number: int) -> tuple[ClipRow, ...]:
    return tuple(_plan(plan).epoch(number))
