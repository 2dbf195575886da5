"""The clips of one training stage: step s is trained on clips s * G to (s + 1) * G - 1.

G is `batch_size * workers`, and each worker takes its slice of every step, by a stream of its own.
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

from pipelines.clip_plan import ClipPlan, Share
from pipelines.config import JobConfig
from pipelines.data import clip_stream
from pipelines.data_config import DataConfig
from pipelines.data_sets import MaskSequences, find_images, mask_sequences
from pipelines.failures import Failures, most_failures
from pipelines.manifest import Manifest

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
    """Opens one worker's stream. Called whenever workers start, so that what `done` says was
    trained on by then is not decoded again."""

    plan: ray.ObjectRef
    """Of a ClipPlan, which all streams of the stage share."""
    share: Share
    steps: int
    done: Callable[[], int]
    failures: Failures | None

    def __call__(self) -> ray.data.Dataset:
        per_step = self.share.batch_size * self.share.workers
        start = min(self.done(), self.steps - 1) * per_step
        stop = self.steps * per_step
        plan = ray.get(self.plan)
        return clip_stream(plan, start, stop, self.share, self.failures, stored=self.plan)


def stage_streams(
    cfg: JobConfig, task: StageTask, videos: Videos, done: Callable[[], int]
) -> dict[str, StageStream]:
    """A stream for every worker, by the name that it asks for, less the `done()` steps."""
    workers, pools = cfg.cluster.workers, videos.pools
    footage = pools.pictures or videos.training
    # (Put where the driver is, with which alone it may go.)
    plan = ray.put(ClipPlan(footage, cfg.data, cfg.seed, pools.masks.uris))
    return {
        _name(rank): StageStream(
            plan,
            Share(rank, workers, task.stage.batch_size),
            task.stage.steps,
            done,
            videos.failures,
        )
        for rank in range(workers)
    }


class OwnStreams(ray.train.DataConfig):
    """Gives each worker the stream of its name, whole and in order, run outside of the trainer."""

    def __init__(self) -> None:
        super().__init__(datasets_to_split=[])

    def configure(self, datasets, world_size, worker_handles, worker_node_ids, **kwargs):
        shards = {
            name: dataset.streaming_split(1, equal=False)[0] for name, dataset in datasets.items()
        }
        return [shards] * world_size


def worker_batches(task: StageTask, done: int) -> Iterator[dict[str, np.ndarray]]:
    """This worker's batches from step `done` on, to the stage's last.

    Raises RuntimeError if the stream is not the planned one.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    size = task.stage.batch_size
    shard = ray.train.get_dataset_shard(_name(rank))
    for batch in shard.iter_batches(batch_size=size, prefetch_batches=2, batch_format="numpy"):
        expected = (done * workers + rank) * size
        first = int(batch["number"][0])
        if first < expected:  # (trained on since the stream was planned)
            continue
        if first > expected or len(batch["number"]) != size:
            break
        done += 1
        yield {key: batch[key] for key in ("frames", "masks")}
    if done < task.stage.steps:
        raise RuntimeError(f"the clips of step {done} did not come from the stream")


def _name(rank: int) -> str:
    return f"train-{rank}"
