"""The stream gives the planned clips in the planned order, and counts what fails."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines import data, storage
from pipelines.bench_data import store_stats
from pipelines.clip_loading import load_clip
from pipelines.clip_plan import ClipPlan, substitutes
from pipelines.data import clip_stream, hand
from pipelines.data_config import DataConfig
from pipelines.failures import Failures
from pipelines.manifest import Manifest, probe_video

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def manifest(video_folder: Path) -> Manifest:
    return Manifest(tuple(probe_video(str(path)) for path in sorted(video_folder.iterdir())))


@pytest.fixture(scope="module")
def cfg(video_folder: Path) -> DataConfig:
    return DataConfig(
        videos=str(video_folder), height=48, width=56, references=2, clips_per_epoch=13
    )


def test_the_planned_clips_in_their_order(ray_cluster, manifest: Manifest, cfg: DataConfig):
    plan = ClipPlan(manifest, cfg, seed=5)
    rows = clip_stream(plan, 9, 35).take_all()
    planned = plan.rows(9, 35)
    assert [(r["uri"], r["number"]) for r in rows] == [(p.uri, p.number) for p in planned]
    assert rows[0]["frames"].dtype == np.uint8 and rows[0]["masks"].dtype == np.bool_
    for number in (0, 6, 25):
        clip = load_clip(planned[number], cfg)
        np.testing.assert_array_equal(rows[number]["frames"], clip["frames"])
        np.testing.assert_array_equal(rows[number]["masks"], clip["masks"])


def test_blocks_are_equal_and_go_round_the_workers(ray_cluster, manifest, cfg: DataConfig):
    """So that Ray, which gives each block to who has had the fewest clips, deals them out."""
    import torch

    stream = clip_stream(ClipPlan(manifest, cfg, 0), 16, 48, workers=2, batch_size=8)
    blocks = list(stream.drop_columns(["uri"]).iter_torch_batches(batch_size=None))
    assert [block["number"].tolist() for block in blocks] == [
        list(range(first, first + 4)) for first in (16, 24, 20, 28, 32, 40, 36, 44)
    ]
    assert blocks[0]["frames"].shape == (4, 3, 48, 56, 3)
    assert blocks[0]["frames"].dtype == torch.uint8
    assert blocks[0]["masks"].shape == (4, 3, 48, 56)
    assert blocks[0]["masks"].dtype == torch.bool


@pytest.mark.parametrize(
    ("batch_size", "clips", "expected"),
    [(8, 100, 4), (8, 4, 4), (8, 3.9, 2), (8, 0.1, 1), (6, 100, 3), (7, 100, 1), (2, 100, 2)],
)
def test_a_hand_divides_a_batch_and_is_small(cfg: DataConfig, batch_size, clips, expected):
    assert hand(batch_size, cfg, clips * 3 * 48 * 56 * 4) == expected


@pytest.fixture
def breaking(tmp_path: Path, video_folder: Path) -> Manifest:
    """Of a.mp4 to e.mp4, b.mp4 and d.mp4 break once they have been found good."""
    shutil.copytree(video_folder, tmp_path / "v")
    paths = sorted((tmp_path / "v").iterdir())
    manifest = Manifest(tuple(probe_video(str(path)) for path in paths))
    (tmp_path / "v" / "b.mp4").write_text("overwritten")
    (tmp_path / "v" / "d.mp4").unlink()
    return manifest


def test_a_file_that_breaks_later_is_counted_and_replaced(ray_cluster, breaking, cfg):
    failures = Failures()
    plan = ClipPlan(breaking, cfg, 0)
    rows = clip_stream(plan, 0, 13, failures=failures).take_all()
    assert [row["number"] for row in rows] == list(range(13))
    for row, planned in zip(rows, plan.rows(0, 13), strict=True):
        if planned.uri[-5] in "bd":
            others = substitutes(planned, breaking.videos, cfg)
            planned = next(other for other in others if other.uri[-5] not in "bd")
        assert row["uri"] == planned.uri
        np.testing.assert_array_equal(row["frames"], load_clip(planned, cfg)["frames"])
    assert [storage.name(bad.uri) for bad in failures.list()] == ["b.mp4", "d.mp4"]


def test_a_file_that_crashes_or_hangs_its_decoder_costs_only_its_clips(
    ray_cluster, manifest, cfg, monkeypatch
):
    honest = data._load

    def load(batch, **options):  # (pickled by value, so that tasks have the faulty decoder)
        from cssta.video import reader
        from pipelines import clip_frames
        from pipelines import data as module

        reader._decord()  # (its import takes seconds, and is not what is timed)
        plain, seconds = clip_frames.read_frames, module.SECONDS_PER_VISIT

        def read(path, indices):
            if path.stem == "b":
                os.abort()
            if path.stem == "d":
                time.sleep(600)
            return plain(path, indices)

        clip_frames.read_frames, module.SECONDS_PER_VISIT = read, 6
        try:
            yield from honest(batch, **options)
        finally:
            clip_frames.read_frames, module.SECONDS_PER_VISIT = plain, seconds

    monkeypatch.setattr(data, "_load", load)
    failures = Failures()
    rows = data.clip_stream(ClipPlan(manifest, cfg, 0), 0, 13, failures=failures).take_all()
    assert [row["number"] for row in rows] == list(range(13))
    assert {storage.stem(row["uri"]) for row in rows} <= set("ace")
    assert [(storage.stem(bad.uri), bad.reason) for bad in failures.list()] == [
        ("b", "crashed"),
        ("d", "crashed"),
    ]


def test_kills_from_outside_and_broken_processes_cost_no_good_file(
    ray_cluster, manifest, cfg, monkeypatch, tmp_path
):
    """b.mp4 is killed twice, as for want of memory; d.mp4 breaks what decodes it."""
    honest, kills = data._load, tmp_path

    def load(batch, **options):  # (pickled by value, so that tasks have the faulty decoder)
        from pipelines import clip_frames

        plain = clip_frames.read_frames

        def read(path, indices):
            if path.stem == "b" and len(list(kills.iterdir())) < 2:
                (kills / str(len(list(kills.iterdir())))).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if path.stem == "d":
                clip_frames.broken = True  # (stays with the process)
            if getattr(clip_frames, "broken", False):
                raise SystemError("bad call flags")
            return plain(path, indices)

        clip_frames.read_frames = read
        try:
            yield from honest(batch, **options)
        finally:
            clip_frames.read_frames = plain
            clip_frames.broken = False

    monkeypatch.setattr(data, "_load", load)
    failures = Failures()
    plan = ClipPlan(manifest, cfg, 0)
    rows = data.clip_stream(plan, 0, 13, failures=failures).take_all()
    for row, planned in zip(rows, plan.rows(0, 13), strict=True):
        assert row["number"] == planned.number
        assert (row["uri"] == planned.uri) == (not planned.uri.endswith("d.mp4"))
    (rejected,) = failures.list()
    assert rejected.uri.endswith("d.mp4") and "2 times, at last by SystemError" in rejected.message
    assert len(list(kills.iterdir())) == 2


def test_too_many_files_that_break_end_the_stream(ray_cluster, breaking, cfg):
    failures = Failures(limit=1)
    with pytest.raises(Exception, match="2 files failed"):
        clip_stream(ClipPlan(breaking, cfg, 0), 0, 13, failures=failures).take_all()
    with pytest.raises(ValueError, match=r"max_failures allows 1: .*[bd]\.mp4.*[bd]\.mp4"):
        failures.check()


def test_a_stream_does_not_fill_the_object_store(ray_cluster, manifest, cfg, monkeypatch):
    """However much is streamed, and however slow who reads it (`make bench-data` fills a store)."""
    total = ray_cluster.cluster_resources()["object_store_memory"]
    limit = 24 * 2**20
    monkeypatch.setattr(data, "STORE_SHARE", limit / total)
    large = cfg.model_copy(update={"height": 256, "width": 256, "references": 6})
    before = peak = store_stats().object_store_bytes_used
    stream = data.clip_stream(ClipPlan(manifest, large, 0), 0, 100)
    read = 0
    for number, batch in enumerate(stream.iter_batches(batch_size=2, prefetch_batches=1)):
        read += batch["frames"].nbytes + batch["masks"].nbytes
        if number % 10 == 0:
            time.sleep(0.1)
            peak = max(peak, store_stats().object_store_bytes_used)
    assert read > 7 * limit
    assert peak - before < 4 * limit  # (tasks and batches in flight come on top)


def test_very_short_videos(ray_cluster, tmp_path: Path, cfg: DataConfig):
    from cssta.video import write_video

    for frames in (1, 2):
        write_video(tmp_path / f"{frames}.mp4", np.full((frames, 33, 47, 3), 99, np.uint8), 24)
    videos = [probe_video(str(path)) for path in sorted(tmp_path.iterdir())]
    rows = clip_stream(ClipPlan(Manifest(tuple(videos)), cfg, 0), 0, 4).take_all()
    assert {r["frames"].shape for r in rows} == {(3, 48, 56, 3)}
