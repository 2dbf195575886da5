"""The clips of one training stage: step s is trained on clips s * G to (s + 1) * G - 1.

G is `batch_size * workers`, and each worker is given its slice of every step by the one stream.
So a stage meets the same clips in the same order with any number of workers, and after any number
of interruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import ray
import ray.train

from pipelines.clip_plan import ClipPlan
from pipelines.config import JobConfig
from pipelines.data import MEMORY_PER_TASK, clip_stream
from pipelines.data_config import DataConfig
from pipelines.data_sets import MaskSequences, find_images, mask_sequences
from pipelines.failures import Failures, most_failures
from pipelines.manifest import Manifest
from pipelines.worker_resources import check_memory

STREAM = "train"

if TYPE_CHECKING:
    import ray.data

    from pipelines.train_loop import StageTask
    from pipelines.train_stage import Videos


@dataclass(frozen=True)
class Pools:
    """What a stage's clips are drawn from beside the videos.

    `pictures`: IM2IM learns from them instead of the videos, if there are any.
    """

    pictures: Manifest | None = None
    masks: MaskSequences = field(default_factory=MaskSequences)

    def digests(self) -> list[str]:
        """Of names and sizes, as other pictures or masks make another sequence of clips."""
        return [self.pictures.digest if self.pictures else "", self.masks.digest]


def with_pools(cfg: DataConfig, stage: str, videos: Videos) -> Videos:
    """The videos, with what else the stage of that name draws from, as it is found now.

    The share of it that may fail is counted apart. Raises EmptyBucketError or StorageError.
    """
    pictures = find_images(cfg) if cfg.images is not None and stage == "im2im" else None
    pools = Pools(pictures, mask_sequences(cfg))
    failures = videos.failures
    if failures is not None:
        limits = {"masks": most_failures(cfg.max_failures, len(pools.masks.uris))}
        if pictures is not None:
            limits["pictures"] = most_failures(cfg.max_failures, len(pictures.videos))
        failures = failures.counting_apart(**limits)
    return replace(videos, pools=pools, failures=failures)


@dataclass(frozen=True)
class StageStream:
    """Opens the stage's stream. Called whenever workers start, so that what `done` says was
    trained on by then is not decoded again."""

    plan: ray.ObjectRef
    """Of a ClipPlan."""
    workers: int
    batch_size: int
    """Of one worker."""
    steps: int
    done: Callable[[], int]
    failures: Failures | None

    def __call__(self) -> ray.data.Dataset:
        per_step = self.batch_size * self.workers
        start = min(self.done(), self.steps - 1) * per_step
        stop = self.steps * per_step
        plan = ray.get(self.plan)
        return clip_stream(
            plan, start, stop, self.workers, self.batch_size, self.failures, stored=self.plan
        )


def stage_streams(
    cfg: JobConfig, task: StageTask, videos: Videos, done: Callable[[], int]
) -> dict[str, StageStream]:
    """The stage's stream, less the `done()` steps, by the name that workers ask for.

    Raises ConfigError where no node has the memory to decode clips.
    """
    check_memory(MEMORY_PER_TASK)
    pools = videos.pools
    footage = pools.pictures or videos.training
    # (Put where the driver is, with which alone it may go.)
    plan = ray.put(ClipPlan(footage, cfg.data, cfg.seed, pools.masks.uris))
    stage = task.stage
    return {
        STREAM: StageStream(
            plan, cfg.cluster.workers, stage.batch_size, stage.steps, done, videos.failures
        )
    }


class OwnStreams(ray.train.DataConfig):
    """Gives each worker its own clips of the stream, which runs outside of the trainers."""

    def configure(self, datasets, world_size, worker_handles, worker_node_ids, **kwargs):
        # (Equal blocks that come in order go round the workers; see `worker_batches`.)
        shards = datasets[STREAM].streaming_split(world_size, equal=False)
        return [{STREAM: shard} for shard in shards]


def worker_batches(task: StageTask, done: int) -> Iterator[dict[str, np.ndarray]]:
    """This worker's batches from step `done` on, to the stage's last.

    Raises RuntimeError if the clips are not the planned ones.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    size = task.stage.batch_size
    shard = ray.train.get_dataset_shard(STREAM)
    for batch in shard.iter_batches(batch_size=size, prefetch_batches=2, batch_format="numpy"):
        expected = (done * workers + rank) * size
        first = int(batch["number"][0])
        if first < expected:  # (trained on since the stream was planned)
            continue
        if list(batch["number"]) != list(range(expected, expected + size)):
            break
        done += 1
        yield {key: batch[key] for key in ("frames", "masks")}
    if done < task.stage.steps:
        raise RuntimeError(f"the clips of step {done} did not come from the stream")
