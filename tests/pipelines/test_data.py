"""The stream gives the planned clips in the planned order, and counts what fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines import storage
from pipelines.config import DataConfig
from pipelines.data import Failures, clip_stream, load_clip, plan_clips
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
    rows = clip_stream(manifest, cfg, seed=5, epoch=2).take_all()
    plan = plan_clips(manifest, cfg, 5, 2)
    assert [(r["uri"], r["number"]) for r in rows] == [(p.uri, p.number) for p in plan]
    assert rows[0]["frames"].dtype == np.uint8 and rows[0]["masks"].dtype == np.bool_
    for number in (0, 6, 12):
        clip = load_clip(plan[number], cfg)
        np.testing.assert_array_equal(rows[number]["frames"], clip["frames"])
        np.testing.assert_array_equal(rows[number]["masks"], clip["masks"])


def test_one_stream_over_epochs_resumes_in_the_middle(ray_cluster, manifest, cfg):
    whole = [r["number"] for r in clip_stream(manifest, cfg, 0, epochs=3).take_all()]
    assert whole == list(range(39))
    rest = clip_stream(manifest, cfg, 0, epoch=1, epochs=2, skip=4).take_all()
    assert [r["number"] for r in rest] == whole[17:]


def test_batches_for_a_trainer(ray_cluster, manifest: Manifest, cfg: DataConfig):
    import torch

    stream = clip_stream(manifest, cfg, 0).select_columns(["frames", "masks"])
    batches = list(stream.iter_torch_batches(batch_size=4))
    assert [len(batch["frames"]) for batch in batches] == [4, 4, 4, 1]
    assert batches[0]["frames"].shape == (4, 3, 48, 56, 3)
    assert batches[0]["frames"].dtype == torch.uint8
    assert batches[0]["masks"].shape == (4, 3, 48, 56)
    assert batches[0]["masks"].dtype == torch.bool


def test_a_file_that_breaks_after_the_manifest_is_counted_not_fatal(
    ray_cluster, tmp_path: Path, video_folder: Path, cfg: DataConfig
):
    shutil.copytree(video_folder, tmp_path / "v")
    paths = sorted((tmp_path / "v").iterdir())
    manifest = Manifest(tuple(probe_video(str(path)) for path in paths))
    (tmp_path / "v" / "b.mp4").write_text("overwritten")
    (tmp_path / "v" / "d.mp4").unlink()
    failures = Failures()
    rows = clip_stream(manifest, cfg, 0, failures=failures).take_all()
    left = [row for row in plan_clips(manifest, cfg, 0, 0) if row.uri[-5] not in "bd"]
    assert [r["number"] for r in rows] == [row.number for row in left]
    assert [storage.name(bad.uri) for bad in failures.list()] == ["b.mp4", "d.mp4"]


def test_very_short_videos(ray_cluster, tmp_path: Path, cfg: DataConfig):
    from cssta.video import write_video

    for frames in (1, 2):
        write_video(tmp_path / f"{frames}.mp4", np.full((frames, 33, 47, 3), 99, np.uint8), 24)
    videos = [probe_video(str(path)) for path in sorted(tmp_path.iterdir())]
    rows = clip_stream(Manifest(tuple(videos)), cfg, 0, clips=4).take_all()
    assert {r["frames"].shape for r in rows} == {(3, 48, 56, 3)}
