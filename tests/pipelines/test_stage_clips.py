"""What a stage's workers are given: together, in every step, the planned clips of that step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray.train

from pipelines import stage_clips
from pipelines.clip_plan import ClipPlan
from pipelines.config import JobConfig
from pipelines.manifest import Manifest, probe_video
from pipelines.stage_clips import OwnStreams, stage_streams, worker_batches

STEPS = 6


def make_config(videos: Path, workers: int) -> JobConfig:
    data = {"videos": str(videos), "height": 48, "width": 48, "references": 1, "flip": False}
    return JobConfig.parse(
        {"data": data | {"clips_per_epoch": 10}, "cluster": {"workers": workers}}
    )


def make_task(batch_size: int) -> SimpleNamespace:
    return SimpleNamespace(stage=SimpleNamespace(batch_size=batch_size, steps=STEPS))


def trained_on(monkeypatch, cfg, videos, batch_size: int, planned: int = 0, done: int = 0):
    """Frames of every step's clips, over all workers, from streams planned at step `planned`."""
    task = make_task(batch_size)
    streams = stage_streams(cfg, task, videos, done=lambda: planned)
    shards = {
        name: OwnStreams().configure({name: stream()}, 1, None, None)[0][name]
        for name, stream in streams.items()
    }
    monkeypatch.setattr(ray.train, "get_dataset_shard", shards.__getitem__)
    parts = []
    for rank in range(cfg.cluster.workers):
        context = SimpleNamespace(
            get_world_rank=lambda rank=rank: rank, get_world_size=lambda: cfg.cluster.workers
        )
        monkeypatch.setattr(ray.train, "get_context", lambda context=context: context)
        parts.append([batch["frames"] for batch in worker_batches(task, done)])
    return [np.concatenate(batches) for batches in zip(*parts, strict=True)]


@pytest.mark.cluster
def test_every_step_has_its_clips_with_any_number_of_workers(
    ray_cluster, video_folder, monkeypatch
):
    found = tuple(probe_video(str(path)) for path in sorted(video_folder.iterdir()))
    videos = SimpleNamespace(training=Manifest(found), failures=None)
    alone, two = (make_config(video_folder, workers) for workers in (1, 2))
    expected = trained_on(monkeypatch, alone, videos, batch_size=4)
    assert len(expected) == STEPS
    for steps in (
        trained_on(monkeypatch, two, videos, batch_size=2),
        # resumed at step 2, and once more at 3 before the streams were planned again
        [*expected[:3], *trained_on(monkeypatch, two, videos, 2, planned=2, done=3)],
    ):
        for one, other in zip(steps, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    plan = ClipPlan(videos.training, alone.data, alone.seed)
    assert len({tuple(row.indices) for row in plan.rows(0, 24)}) > 10  # (no two steps alike)


@pytest.mark.parametrize("numbers", [[2, 3], [0, 2], []])
def test_a_stream_other_than_the_planned_one_is_an_error(monkeypatch, numbers):
    class Shard:
        def iter_batches(self, batch_size, **_):
            for number in numbers:
                yield {"frames": [0], "masks": [0], "number": [number]}

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(stage_clips.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(stage_clips.ray.train, "get_dataset_shard", lambda name: Shard())
    with pytest.raises(RuntimeError, match=r"step [01] did not come"):
        list(worker_batches(make_task(1), 0))
