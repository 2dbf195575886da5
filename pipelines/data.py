"""The training stream: planned clips (`ClipPlan`), decoded by Ray Data tasks (`load_clips`).

What travels between processes is two numbers per task until it decodes its clips, and then
fixed-shape uint8 frames and bool masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipelines.clip_loading import load_clips, no_attempt
from pipelines.clip_plan import ClipPlan, ClipRow, Deal, substitutes
from pipelines.data_config import DataConfig
from pipelines.failures import Failures
from pipelines.last_words import LastWords
from pipelines.watchdog import Watchdog, end_process

if TYPE_CHECKING:
    import ray
    import ray.data

CLIPS_PER_BLOCK = 4  # handed on as soon as they are there, so that a trainer starts early
BLOCKS_ON_THEIR_WAY = 16
SECONDS_PER_VISIT = 300.0  # for a few clips of one file; transfers have limits of their own
MEMORY_PER_TASK = 1024**3  # a decoder's read-ahead and a task's clips
STORE_SHARE = 0.25  # of the cluster's object store, for the stream of a stage


def clip_stream(
    plan: ClipPlan,
    start: int,
    stop: int,
    workers: int = 1,
    batch_size: int = CLIPS_PER_BLOCK,
    failures: Failures | None = None,
    stored: ray.ObjectRef | None = None,
) -> ray.data.Dataset:
    """Clips number `start` to `stop` - 1, in their order for one worker, else as `Deal` says.

    Columns: frames uint8 (T, H, W, 3), masks bool (T, H, W), uri, number. Every block holds as
    many clips as any other, all of one worker; blocks go round the workers. (A stream for each
    would starve: Ray Data divides the CPUs that trainers leave by the number of streams, and
    rounds down.) With several workers, `start` and `stop` are where steps begin and end. A clip
    whose file fails is told to `failures` and replaced by its substitute, so every number comes.
    `stored`: the plan in the object store. Raises (here or while it is read) as `plan_clips` and
    `load_clips` do, and TooManyFailuresError.
    """
    import ray
    import ray.data

    plan.epoch(start // plan.cfg.clips_per_epoch)  # (what is wrong with the plan is told here)
    store = store_budget(plan)
    # Several blocks of every task are on their way at once, beside the trainers' batches.
    deal = Deal(workers, batch_size, hand(batch_size, plan.cfg, store / BLOCKS_ON_THEIR_WAY))
    # Tasks of some seconds, so that starting one does not count.
    spans = plan.spans(start, stop, deal.hand)
    dataset = ray.data.from_items(
        [{"start": first, "stop": last} for first, last in spans],
        override_num_blocks=len(spans) or 1,
    )
    context = dataset.context
    context.execution_options.preserve_order = True
    # Just less than a hand of clips, so that Ray makes a block of each, and much more than the
    # two thirds of one, at which it would cut it. (Masks take a bit or a byte a pixel.)
    context.target_max_block_size = int(2.8 * deal.hand * _pixels(plan.cfg))
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(object_store_memory=store)
    stored = stored or ray.put(plan)
    load = partial(_load, plan=stored, cfg=plan.cfg, deal=deal, failures=failures)
    return dataset.map_batches(load, batch_size=None, memory=MEMORY_PER_TASK)


def hand(batch_size: int, cfg: DataConfig, most_bytes: float) -> int:
    """Clips per block: up to CLIPS_PER_BLOCK that divide a batch and stay below `most_bytes`."""
    fitting = min(int(most_bytes / (4 * _pixels(cfg))), CLIPS_PER_BLOCK)
    return max(size for size in range(1, max(fitting, 1) + 1) if batch_size % size == 0)


def _pixels(cfg: DataConfig) -> int:
    """Of a clip."""
    return (cfg.references + 1) * cfg.height * cfg.width


def store_budget(plan: ClipPlan) -> float:
    """Bytes of the object store for the stream of a plan, of which every node keeps a copy."""
    import ray

    share = ray.cluster_resources().get("object_store_memory", 0) * STORE_SHARE
    nodes = sum(node["Alive"] for node in ray.nodes())
    return max(share - nodes * plan.nbytes, share / 2)


def _load(
    batch: dict[str, np.ndarray],
    plan: ray.ObjectRef,
    cfg: DataConfig,
    deal: Deal,
    failures: Failures | None,
) -> Iterator[dict[str, np.ndarray]]:
    cv2.setNumThreads(1)
    report = failures.report if failures else (lambda rejected: None)

    def others(row: ClipRow) -> Iterator[ClipRow]:
        return substitutes(row, _plan(plan).manifest.videos, cfg)

    for start, stop in zip(batch["start"].tolist(), batch["stop"].tolist(), strict=True):
        rows = [_row(plan, deal.number(place)) for place in range(start, stop)]
        attempt = partial(failures.attempt, str(start)) if failures else no_attempt
        clips = load_clips(rows, cfg, report, others, partial(_watched, attempt))
        while held := list(islice(clips, deal.hand)):
            yield {
                "frames": np.stack([clip["frames"] for _, clip in held]),
                "masks": np.stack([clip["masks"] for _, clip in held]),
                "uri": np.array([row.uri for row, _ in held]),
                "number": np.array([row.number for row, _ in held]),
            }


@contextmanager
def _watched(
    attempt: Callable[[str], AbstractContextManager[LastWords | None]], uri: str
) -> Iterator[LastWords | None]:
    """One attempt with a file, at whose hanging end this process: nothing else stops a decoder."""
    with (
        attempt(uri) as words,
        Watchdog(SECONDS_PER_VISIT, words.hung if words else end_process),
    ):
        yield words


def _row(plan: ray.ObjectRef, number: int) -> ClipRow:
    """A process plans an epoch once, however many of its tasks it runs."""
    epoch, place = divmod(number, _plan(plan).cfg.clips_per_epoch)
    return _epoch(plan, epoch)[place]


@lru_cache(maxsize=2)
def _plan(plan: ray.ObjectRef) -> ClipPlan:
    import ray

    return ray.get(plan)


@lru_cache(maxsize=4)
def _epoch(plan: ray.ObjectRef, number: int) -> tuple[ClipRow, ...]:
    return tuple(_plan(plan).epoch(number))
