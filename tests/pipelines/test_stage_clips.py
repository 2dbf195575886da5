"""What a stage's workers are given: together, in every step, the planned clips of that step."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import ray.train

from pipelines import data, stage_clips, storage
from pipelines.clip_plan import ClipPlan
from pipelines.config import JobConfig
from pipelines.data import store_budget
from pipelines.data_sets import find_images
from pipelines.failures import Failures, TooManyFailuresError
from pipelines.manifest import Manifest, Rejected, probe_video
from pipelines.stage_clips import OwnStreams, stage_streams, with_pools, worker_batches
from pipelines.train_stage import Videos

STEPS = 6


def make_config(videos: Path, workers: int, **more) -> JobConfig:
    data = {"videos": str(videos), "height": 48, "width": 48, "references": 1, "flip": False}
    data |= more
    return JobConfig.parse(
        {"data": data | {"clips_per_epoch": 10}, "cluster": {"workers": workers}}
    )


def make_task(batch_size: int, steps: int = STEPS) -> SimpleNamespace:
    return SimpleNamespace(stage=SimpleNamespace(batch_size=batch_size, steps=steps))


class Context(threading.local):
    """Stands for `ray.train`, in which every thread is a worker."""

    rank, workers, shard = 0, 1, None

    def get_world_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return self.workers


def trained_on(monkeypatch, cfg, videos, task, planned: int = 0, done: int = 0, seconds=120):
    """Frames of every step's clips, over all workers, from a stream planned at step `planned`.

    As in training, nobody begins a step before all have ended the last.
    """
    (name, stream), *_ = stage_streams(cfg, task, videos, done=lambda: planned).items()
    workers, context = cfg.cluster.workers, Context()
    shards = OwnStreams().configure({name: stream()}, workers, None, None)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "get_dataset_shard", lambda name: context.shard[name])
    together = threading.Barrier(workers)
    parts: list[list[np.ndarray]] = [[] for _ in range(workers)]

    def work(rank: int) -> None:
        context.rank, context.workers, context.shard = rank, workers, shards[rank]
        for batch in worker_batches(task, done):
            parts[rank].append(batch["frames"])
            together.wait(seconds)

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(workers)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    assert [len(part) for part in parts] == [task.stage.steps - done] * workers, "they wait"
    return [np.concatenate(batches) for batches in zip(*parts, strict=True)]


@pytest.mark.cluster
def test_every_step_has_its_clips_with_any_number_of_workers(
    ray_cluster, video_folder, monkeypatch
):
    found = tuple(probe_video(str(path)) for path in sorted(video_folder.iterdir()))
    videos = Videos(Manifest(found), Manifest(()))
    alone, two = (make_config(video_folder, workers) for workers in (1, 2))
    expected = trained_on(monkeypatch, alone, videos, make_task(4))
    assert len(expected) == STEPS
    for steps in (
        trained_on(monkeypatch, two, videos, make_task(2)),
        # resumed at step 2, and once more at 3 before the streams were planned again
        [*expected[:3], *trained_on(monkeypatch, two, videos, make_task(2), planned=2, done=3)],
    ):
        for one, other in zip(steps, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    plan = ClipPlan(videos.training, alone.data, alone.seed)
    assert len({tuple(row.indices) for row in plan.rows(0, 24)}) > 10  # (no two steps alike)


@pytest.mark.cluster
def test_workers_in_step_get_their_clips_from_one_spare_cpu(ray_cluster, video_folder, monkeypatch):
    """And from a store that holds fewer clips than a task decodes."""
    found = tuple(probe_video(str(path)) for path in sorted(video_folder.iterdir()))
    total = ray_cluster.cluster_resources()
    clip_bytes = 2 * 48 * 48 * 4
    monkeypatch.setattr(data, "STORE_SHARE", 8 * clip_bytes / total["object_store_memory"])

    class Trainers:
        def ready(self) -> bool:
            return True

    busy = ray_cluster.remote(num_cpus=total["CPU"] - 1)(Trainers).remote()
    try:
        assert ray_cluster.get(busy.ready.remote(), timeout=120)
        cfg = make_config(video_folder, 2, clips_per_epoch=256)
        videos = Videos(Manifest(found), Manifest(()))
        steps = trained_on(monkeypatch, cfg, videos, make_task(2, steps=40), seconds=90)
        assert len(steps) == 40
    finally:
        ray_cluster.kill(busy)


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


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Twelve pictures in two folders, the first three of them damaged; two mask sequences."""
    rng = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "places" / f"category{number % 2}" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (60, 60, 3), np.uint8))
        if number < 3:
            path.write_text("no picture")
    for name in ("cat", "dog"):
        (tmp_path / "masks" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "masks" / name / "0.png"), np.full((24, 24, 3), 9, np.uint8))
    return tmp_path / "places"


def a_few_videos(video_folder: Path, limit: int) -> Videos:
    rows = tuple(probe_video(str(path)) for path in sorted(video_folder.glob("[ab].mp4")))
    return Videos(Manifest(rows), Manifest(()), Failures(limit))


@pytest.mark.cluster
def test_im2im_learns_from_pictures_of_which_a_share_may_be_bad(ray_cluster, video_folder, places):
    """However few the videos are: their limit is not the pictures'."""
    images = {"images": str(places), "references": 2, "max_failures": 0.5}
    cfg = make_config(video_folder, 2, **images)
    videos = with_pools(cfg.data, "im2im", a_few_videos(video_folder, limit=1))
    task = SimpleNamespace(stage=SimpleNamespace(batch_size=2, steps=STEPS), name="im2im")
    (stream,) = stage_streams(cfg, task, videos, done=lambda: 0).values()
    rows = stream().take_all()
    rows.sort(key=lambda row: row["number"])
    assert [row["number"] for row in rows] == list(range(4 * STEPS))
    plan = ClipPlan(find_images(cfg.data), cfg.data, cfg.seed)
    for row, planned in zip(rows, plan.rows(0, 4 * STEPS), strict=True):
        bad = storage.stem(planned.uri) in ("00", "01", "02")
        assert (row["uri"] == planned.uri) != bad and row["uri"].startswith(str(places))
        steps = np.abs(np.diff(row["frames"].astype(int), axis=0)).mean((1, 2, 3))
        assert (steps > 0.1).all()  # a camera moves
    assert {storage.stem(bad.uri) for bad in videos.failures.list()} == {"00", "01", "02"}
    videos.failures.check()
    videos.failures.report(Rejected("/v/a.mp4", "unreadable", "/v/a.mp4: is bad"))
    with pytest.raises(TooManyFailuresError, match=r"2 files failed.*allows 1: /v/a.*/v/b"):
        videos.failures.report(Rejected("/v/b.mp4", "unreadable", "/v/b.mp4: is bad"))
    # the other stages do not look at pictures
    assert with_pools(cfg.data, "inpainter", videos).pools.pictures is None


@pytest.mark.cluster
def test_too_many_bad_pictures_or_masks_end_a_stage(ray_cluster, video_folder, places):
    masks = {"kind": "objects", "objects": str(places.parent / "masks")}
    more = {"images": str(places), "max_failures": 0.2, "masks": masks}
    cfg = make_config(video_folder, 1, **more)
    videos = with_pools(cfg.data, "im2im", a_few_videos(video_folder, limit=9))
    task = SimpleNamespace(stage=SimpleNamespace(batch_size=2, steps=STEPS), name="im2im")
    (stream,) = stage_streams(cfg, task, videos, done=lambda: 0).values()
    with pytest.raises(Exception, match=r"3 pictures failed, and data\.max_failures allows 2"):
        stream().take_all()
    for path in (places.parent / "masks").rglob("*.png"):
        path.write_text("no picture")
    videos = with_pools(cfg.data, "inpainter", a_few_videos(video_folder, limit=9))
    (stream,) = stage_streams(cfg, task, videos, done=lambda: 0).values()
    with pytest.raises(Exception, match=r"\d mask sequences failed, and .* allows 0: .*0\.png"):
        stream().take_all()


@pytest.mark.cluster
def test_a_large_plan_takes_its_room_from_the_streams(ray_cluster):
    plans = [SimpleNamespace(nbytes=size) for size in (0, 10**6, 10**12)]
    nothing, some, all_of_it = (store_budget(plan) for plan in plans)
    nodes = sum(node["Alive"] for node in ray_cluster.nodes())
    assert nothing - some == nodes * 10**6
    assert all_of_it == nothing / 2  # (its streams would stand still)
