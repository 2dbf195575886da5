"""The clips of one training stage: planned as one stream by the driver, read by its workers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import ray.train

from pipelines.config import JobConfig
from pipelines.data import clip_stream

if TYPE_CHECKING:
    import ray.data

    from pipelines.train_loop import StageTask
    from pipelines.train_stage import Videos

SPARE_CLIPS = 0.1  # planned beyond the need, for files that fail half-way


def stage_stream(cfg: JobConfig, task: StageTask, videos: Videos) -> ray.data.Dataset:
    """All clips that the stage has yet to see, less those of its `task.begun` steps."""
    per_step = task.stage.batch_size * cfg.cluster.workers
    clips = math.ceil(task.stage.steps * per_step * (1 + SPARE_CLIPS) + 2 * per_step)
    return clip_stream(
        videos.training,
        cfg.data,
        cfg.seed,
        epochs=math.ceil(clips / cfg.data.clips_per_epoch),
        skip=task.begun * per_step,
        failures=videos.failures,
    )


def worker_batches(task: StageTask, done: int) -> Iterator[dict[str, np.ndarray]]:
    """This worker's batches without end, less the first `done` of the stream.

    The plan has spare clips for files that fail; if even those run out, it is read again.
    Raises RuntimeError when a whole reading gives no batch.
    """
    shard = ray.train.get_dataset_shard("train")
    while True:
        given = 0
        rows = shard.iter_batches(
            batch_size=task.stage.batch_size,
            prefetch_batches=2,
            batch_format="numpy",
            drop_last=True,
        )
        for number, batch in enumerate(rows):
            given += 1
            # A restarted worker passes over what was trained on: the order is planned, not drawn.
            # (Alone it meets just the clips not seen yet. Several workers share the stream as they
            # ask for it, so there some clips may come twice and others not at all.)
            if number >= done:
                yield batch
        if not given:
            raise RuntimeError("no clip of the bucket could be decoded")
        done = 0
