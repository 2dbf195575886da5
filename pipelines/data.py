"""The training stream: planned clips (`plan_clips`), decoded by Ray Data tasks (`load_clip`).

What travels between processes is a few numbers per clip until a task decodes it, and then
fixed-shape uint8 frames and bool masks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipelines.clip_loading import load_clip, load_clips
from pipelines.clip_plan import CLIPS_PER_OPEN, ClipRow, object_sequences, plan_clips
from pipelines.config import DataConfig
from pipelines.manifest import Manifest, Rejected

if TYPE_CHECKING:
    import ray.data

__all__ = ["ClipRow", "Failures", "clip_stream", "load_clip", "object_sequences", "plan_clips"]

CLIPS_PER_TASK = 64  # long enough (seconds) that starting a task does not count
CLIPS_PER_BLOCK = 4  # handed on as soon as they are there, so that a trainer starts early
MEMORY_PER_TASK = 1024**3  # a decoder's read-ahead and a few clips


class Failures:
    """Counts the videos that failed while being streamed, from whichever process met them."""

    def __init__(self) -> None:
        import ray

        self._log = ray.remote(num_cpus=0)(_FailureLog).remote()

    def report(self, rejected: Rejected) -> None:
        import ray

        # Waited for: whoever has seen the stream end must find every failure listed.
        with suppress(ray.exceptions.RayActorError):
            ray.get(self._log.add.remote(rejected))

    def list(self) -> list[Rejected]:
        """One entry per video and reason, sorted."""
        import ray

        return ray.get(self._log.entries.remote())


class _FailureLog:
    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Rejected] = {}

    def add(self, rejected: Rejected) -> None:
        self._entries.setdefault((rejected.uri, rejected.reason), rejected)

    def entries(self) -> list[Rejected]:
        return [self._entries[key] for key in sorted(self._entries)]


def clip_stream(
    manifest: Manifest,
    cfg: DataConfig,
    seed: int,
    epoch: int = 0,
    *,
    epochs: int = 1,
    skip: int = 0,
    clips: int | None = None,
    failures: Failures | None = None,
) -> ray.data.Dataset:
    """Clips of `epochs` epochs from `epoch` on, in the planned order, less the first `skip`.

    Columns: frames uint8 (T, H, W, 3), masks bool (T, H, W), uri, number. One stream over many
    epochs saves each epoch's start; (epoch, skip) is where a restarted job goes on. A clip whose
    file fails gives no row; it is told to `failures`. Raises as `plan_clips` does.
    """
    import ray.data

    objects = object_sequences(cfg)
    rows = [
        row
        for number in range(epoch, epoch + epochs)
        for row in plan_clips(manifest, cfg, seed, number, clips=clips, objects=objects)
    ][skip:]
    # One string per visit of a video: nested rows would cost Arrow conversions and say no more.
    visits = [
        {"visit": json.dumps([asdict(row) for row in same[start : start + CLIPS_PER_OPEN]])}
        for same in (list(group) for _, group in groupby(rows, key=lambda row: row.uri))
        for start in range(0, len(same), CLIPS_PER_OPEN)
    ]
    tasks = max(min(len(visits), 16), math.ceil(len(rows) / CLIPS_PER_TASK))
    dataset = ray.data.from_items(visits, override_num_blocks=min(tasks, len(visits)) or 1)
    clip_bytes = (cfg.references + 1) * cfg.height * cfg.width * 4
    dataset.context.target_max_block_size = CLIPS_PER_BLOCK * clip_bytes
    dataset.context.execution_options.preserve_order = True
    load = partial(_load_visits, cfg=cfg, failures=failures)
    return dataset.map_batches(load, batch_size=None, memory=MEMORY_PER_TASK)


def _load_visits(
    batch: dict[str, np.ndarray], cfg: DataConfig, failures: Failures | None
) -> Iterator[dict[str, np.ndarray]]:
    cv2.setNumThreads(1)
    report = failures.report if failures else (lambda rejected: None)
    for visit in batch["visit"]:
        rows = [ClipRow(**{**row, "indices": tuple(row["indices"])}) for row in json.loads(visit)]
        for row, clip in load_clips(rows, cfg, report):
            yield {
                "frames": clip["frames"][None],
                "masks": clip["masks"][None],
                "uri": np.array([row.uri]),
                "number": np.array([row.number]),
            }
